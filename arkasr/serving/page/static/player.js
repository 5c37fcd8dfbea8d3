// The player of a card: one button, one slider, the time.

import { clock, spokenTime } from "./formats.js";

let playing = null; // one card plays at a time

export class Player {
  #root;
  #audio;
  #seek;
  #time;
  #onTime;
  #address;
  #known = 0; // length in seconds, if the file does not say
  #started = false; // whether it was played or sought
  #searching = false; // for the end of a file that does not say its length

  /** `onTime(seconds)` is called on each frame while the audio plays. `onUnplayable()`: the browser cannot play it. */
  constructor(root, file, { onTime, onUnplayable, onLength }) {
    this.#root = root;
    [this.#audio, this.#seek, this.#time] = ["audio", ".seek", ".time"].map(name => root.querySelector(name));
    this.#onTime = onTime;
    this.#address = URL.createObjectURL(file);
    const audio = this.#audio;
    audio.onloadedmetadata = () => {
      // Recordings of MediaRecorder have no length until their end was looked for.
      this.#searching = audio.duration === Infinity;
      if (this.#searching) audio.currentTime = 1e9;
      else onLength(audio.duration);
      root.hidden = false;
      this.#show();
    };
    audio.onerror = () => {
      root.hidden = true;
      onUnplayable();
    };
    audio.onplay = () => {
      if (playing && playing !== this) playing.#audio.pause();
      playing = this;
      this.#started = true;
      this.#state();
      this.#frame();
    };
    audio.onpause = audio.onended = () => this.#state();
    audio.ontimeupdate = audio.onseeked = audio.ondurationchange = () => this.#show();
    root.querySelector(".play").onclick = () => this.toggle();
    this.#seek.oninput = () => this.seek(Number(this.#seek.value));
    audio.src = this.#address;
  }

  /** Length in seconds, or 0 while it is not known. */
  get length() {
    return Number.isFinite(this.#audio.duration) ? this.#audio.duration : this.#known;
  }

  set length(seconds) {
    this.#known = seconds;
    this.#show();
  }

  toggle() {
    if (this.#audio.paused) this.#play();
    else this.#audio.pause();
  }

  /** Go to a time. While the audio plays, it goes on from there. */
  seek(seconds) {
    this.#started = true;
    this.#audio.currentTime = Math.min(seconds, this.length || seconds);
    this.#show();
  }

  #play() {
    this.#audio.play().catch(error => console.debug(error)); // `onerror` shows what the reader has to know
  }

  #frame() {
    if (this.#audio.paused) return;
    this.#show();
    requestAnimationFrame(() => this.#frame());
  }

  #state() {
    const running = !this.#audio.paused && !this.#audio.ended;
    this.#root.classList.toggle("playing", running);
    this.#root.querySelector(".play").setAttribute("aria-label", running ? "Pause" : "Play");
  }

  #show() {
    if (this.#searching) {
      if (this.#audio.duration === Infinity && this.#audio.seeking) return;
      this.#searching = false;
      this.#audio.currentTime = 0;
    }
    const [at, length] = [this.#audio.currentTime, this.length];
    this.#seek.max = length || 1;
    this.#seek.value = at;
    this.#seek.setAttribute("aria-valuetext", `${spokenTime(at)} of ${spokenTime(length)}`);
    this.#time.textContent = `${clock(at)} / ${clock(length)}`;
    if (this.#started) this.#onTime(at);
  }

  remove() {
    this.#audio.pause();
    this.#audio.removeAttribute("src");
    URL.revokeObjectURL(this.#address);
    if (playing === this) playing = null;
  }
}
