// The microphone: level and time while it records, a file at the end.

const TYPES = { "audio/webm;codecs=opus": "webm", "audio/mp4": "m4a", "audio/ogg;codecs=opus": "ogg", "audio/webm": "webm" };
const QUIET_DB = -60; // the left end of the level
const SILENT_AFTER_MS = 3000;

const REFUSALS = {
  NotAllowedError: "The browser did not allow this page to use the microphone. Allow it in the settings of this address, then try again.",
  NotFoundError: "There is no microphone. Connect one, then try again.",
  NotReadableError: "The microphone does not answer. Another program may use it. Close that program, then try again.",
};

/** Why this browser cannot record here, or "". */
function obstacle() {
  if (!isSecureContext)
    return `Browsers allow recording only over https, or on this computer itself. Open this page as http://localhost${location.port && `:${location.port}`} through an ssh tunnel, or put https in front of the service. You can also record with another program and choose the file.`;
  if (!navigator.mediaDevices?.getUserMedia || !globalThis.MediaRecorder)
    return "This browser cannot record. Use another browser, or record with another program and choose the file.";
  return "";
}

function name(ending) {
  const now = new Date();
  const stamp = [now.getHours(), now.getMinutes(), now.getSeconds()].map(each => String(each).padStart(2, "0")).join("-");
  return `recording ${stamp}.${ending}`;
}

export class Recorder {
  #stream;
  #context;
  #recorder;
  #chunks = [];
  #stopped;
  #start;

  /** Open the microphone. Throws an Error whose message says why it cannot, and what to do. */
  static async open() {
    const why = obstacle();
    if (why) throw new Error(why);
    try {
      return new Recorder(await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } }));
    } catch (error) {
      throw new Error(REFUSALS[error.name] ?? `The microphone cannot be used: ${error.message}.`);
    }
  }

  constructor(stream) {
    this.#stream = stream;
    const type = Object.keys(TYPES).find(each => MediaRecorder.isTypeSupported(each)) ?? "";
    this.#recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
    this.#recorder.ondataavailable = event => this.#chunks.push(event.data);
    this.#stopped = new Promise(resolve => (this.#recorder.onstop = resolve));
    this.#recorder.start(1000); // chunks of a second, so that a lost microphone keeps what came before
    this.#start = performance.now();
  }

  get seconds() {
    return (performance.now() - this.#start) / 1000;
  }

  /** Call `show({seconds, level, silent})` on each frame until the end. `level` is from 0 to 1. */
  watch(show) {
    this.#context = new AudioContext();
    this.#context.resume(); // browsers suspend it if the click was long ago
    const analyser = new AnalyserNode(this.#context, { fftSize: 2048 });
    this.#context.createMediaStreamSource(this.#stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    let heard = performance.now();
    const frame = () => {
      if (this.#recorder.state === "inactive") return;
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, each) => sum + each * each, 0) / samples.length;
      const level = Math.min(Math.max(1 - (10 * Math.log10(power + 1e-12)) / QUIET_DB, 0), 1);
      if (level > 0) heard = performance.now();
      show({ seconds: this.seconds, level, silent: performance.now() - heard > SILENT_AFTER_MS });
      requestAnimationFrame(frame);
    };
    frame();
  }

  /** Resolves when the recording has ended, also by itself because the microphone is gone. */
  get ended() {
    return this.#stopped;
  }

  /** End the recording and return it as a file. */
  async finish() {
    if (this.#recorder.state !== "inactive") this.#recorder.stop();
    await this.#stopped;
    this.#stream.getTracks().forEach(track => track.stop());
    await this.#context?.close();
    const type = this.#recorder.mimeType || "audio/webm";
    const ending = Object.entries(TYPES).find(([each]) => type.startsWith(each.split(";")[0]))?.[1] ?? "webm";
    return new File(this.#chunks, name(ending), { type });
  }
}
