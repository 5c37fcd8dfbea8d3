// The panel that replaces the drop area while the microphone records.

import { clock } from "./formats.js";
import { Recorder } from "./recorder.js";

const at = id => document.getElementById(id);

export class RecordingPanel {
  #take;
  #limit;
  #recorder = null;

  /** `take([file])` gets the recording. `limit`: the longest audio in seconds, or null. */
  constructor(take, limit) {
    this.#take = take;
    this.#limit = limit ?? Infinity;
    at("record").onclick = () => this.#open();
    at("stop").onclick = () => this.#close(true);
    at("discard").onclick = () => this.#close(false);
  }

  get isOpen() {
    return this.#recorder !== null;
  }

  async #open() {
    at("record-problem").hidden = true;
    at("record").disabled = true; // while the browser asks
    try {
      this.#recorder = await Recorder.open();
    } catch (error) {
      at("record-problem").textContent = error.message;
      at("record-problem").hidden = false;
      return;
    } finally {
      at("record").disabled = false;
    }
    this.#swap(true);
    at("stop").focus();
    const recorder = this.#recorder;
    recorder.ended.then(() => this.#recorder === recorder && this.#close(true)); // the microphone is gone
    recorder.watch(now => this.#show(now));
  }

  #show({ seconds, level, silent }) {
    at("recording-time").textContent = clock(seconds);
    at("level-bar").style.transform = `scaleX(${level})`;
    at("level").setAttribute("aria-valuenow", Math.round(level * 100));
    const note = silent ? "Nothing is heard. Check that the right microphone is chosen and not muted." : "";
    if (at("recording-note").textContent !== note) at("recording-note").textContent = note;
    if (seconds >= this.#limit) this.#close(true);
  }

  #swap(open) {
    at("drop").hidden = open;
    at("recording").hidden = !open;
  }

  async #close(keep) {
    const recorder = this.#recorder;
    this.#recorder = null;
    if (!recorder) return;
    const file = await recorder.finish();
    this.#swap(false);
    at("record").focus();
    if (keep) this.#take([file]);
  }
}
