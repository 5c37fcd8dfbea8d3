// What a card shows of its file: progress, player, then the result or the problem.

import { copy } from "./clipboard.js";
import { clock, size } from "./formats.js";
import { Player } from "./player.js";
import { Transcript } from "./transcript.js";

const COPIED_MS = 2500;

const withoutEnding = name => name.replace(/\.[^.]+$/, "") || name;

export class CardView {
  #file;
  #announce;
  #player;
  #transcript;
  #addresses = [];
  #facts;
  #result = null;
  #playable = true;
  #recognised = 0; // seconds

  /** `onCancel`, `onAgain` and `onRemove` are called when their buttons are pressed, `announce(text)` for screen readers. */
  constructor(file, { onCancel, onAgain, onRemove, announce }) {
    this.#file = file;
    this.#announce = announce;
    this.node = document.querySelector("#card").content.firstElementChild.cloneNode(true);
    this.#part("h2").textContent = file.name;
    this.#facts = { length: null, size: size(file.size), language: null };
    this.#part(".transcript").setAttribute("aria-label", `Transcript of ${file.name}`);
    this.#part(".remove").setAttribute("aria-label", `Remove ${file.name}`);
    const buttons = { ".cancel": onCancel, ".again": onAgain, ".remove": onRemove, ".copy": () => this.#copy() };
    Object.entries(buttons).forEach(([name, action]) => (this.#part(name).onclick = () => action()));
    this.#player = new Player(this.#part(".player"), file, {
      onTime: seconds => this.#transcript.light(seconds),
      onLength: seconds => {
        this.#setFacts({ length: clock(seconds) });
        this.#showProgress();
      },
      onUnplayable: () => {
        this.#playable = false;
        this.#showUnplayable();
      },
    });
    this.#transcript = new Transcript(this.#part(".transcript"), seconds => this.#player.seek(seconds), () => this.#player.toggle());
  }

  #part(name) {
    return this.node.querySelector(name);
  }

  #setFacts(facts) {
    Object.assign(this.#facts, facts);
    this.#part(".facts").textContent = Object.values(this.#facts).filter(Boolean).join(" · ");
  }

  #show({ work = false, problem = false, after = false }) {
    const shown = { ".work": work, ".problem": problem, ".after": after };
    const focused = this.#part(".work").contains(document.activeElement);
    Object.entries(shown).forEach(([name, visible]) => (this.#part(name).hidden = !visible));
    if (focused && !work) this.#part(".again").focus(); // a hidden button must not keep the focus
  }

  /** Say what happens now. `part` of it is done, from 0 to 1, or null if that is not known. */
  state(text, part = null) {
    this.#part(".state").textContent = text;
    const bar = this.#part("progress");
    bar.setAttribute("aria-label", `${this.#file.name}: ${text}`);
    if (part === null) bar.removeAttribute("value");
    else bar.value = part;
  }

  wait(language) {
    this.#setFacts({ language });
    this.state("Waiting for its turn", 0);
    this.#show({ work: true });
  }

  focusCancel() {
    this.#part(".cancel").focus();
  }

  /** Say which part of the file is sent, from 0 to 1. */
  send(part) {
    this.#recognised = 0;
    if (part < 1) this.state(part ? `Sending: ${Math.floor(part * 100)} %` : "Sending", part);
    else this.state("Recognising speech");
  }

  /** Show the text so far, and how much of the audio it covers. */
  grow(text, seconds) {
    this.#part(".transcript").hidden = false;
    this.#transcript.grow(text);
    this.#recognised = seconds ?? 0;
    this.#showProgress();
  }

  /** Say how much is recognised, once both that and the length of the audio are known. */
  #showProgress() {
    const [seconds, length] = [this.#recognised, this.#player.length];
    if (seconds && length) this.state(`Recognised ${clock(seconds)} of ${clock(length)}`, Math.min(seconds / length, 1));
  }

  succeed(result) {
    this.#result = result;
    this.#showUnplayable();
    const { text, srt = "", notes = [], duration } = result;
    const spoken = text.trim();
    if (duration) {
      this.#player.length = duration;
      this.#setFacts({ length: clock(duration) });
    }
    this.#part(".transcript").hidden = false;
    if (spoken) this.#transcript.show(result);
    else this.#part(".transcript").replaceChildren(Object.assign(document.createElement("p"), { className: "none", textContent: "No speech was found." }));
    this.#part(".notes").replaceChildren(...notes.map(note => Object.assign(document.createElement("li"), { textContent: note })));
    this.#part(".notes").hidden = !notes.length;
    this.#offer(".txt", spoken && `${spoken}\n`);
    this.#offer(".srt", srt);
    this.#part(".copy").hidden = !spoken;
    this.#part(".again").textContent = "Transcribe again";
    this.#show({ after: true });
    this.#announce(`${this.#file.name} is transcribed. ${spoken || "No speech was found."}`);
  }

  /** Say why there is no player, once there is a result. A file that is no audio has a problem to show instead. */
  #showUnplayable() {
    this.#part(".unplayable").hidden = this.#playable || !this.#result;
  }

  #offer(ending, content) {
    const link = this.#part(ending);
    link.hidden = !content;
    if (!content) return;
    link.href = URL.createObjectURL(new Blob([content], { type: "text/plain;charset=utf-8" }));
    link.download = withoutEnding(this.#file.name) + ending;
    this.#addresses.push(link.href);
  }

  fail(problem) {
    if (this.#result) this.#transcript.show(this.#result); // of an earlier try
    const left = this.#result ? " The text below is from the try before." : this.#part(".transcript").textContent ? " The text below is incomplete." : "";
    this.#part(".what").textContent = problem.what;
    this.#part(".advice").textContent = `${problem.advice}${left}`.trim();
    this.#part(".again").textContent = "Try again";
    this.#show({ problem: true, after: true });
  }

  async #copy() {
    const button = this.#part(".copy");
    const done = await copy(this.#result.text.trim());
    button.textContent = done ? "Copied" : "Not copied: select the text";
    this.#announce(button.textContent);
    setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
  }

  remove() {
    this.#player.remove();
    this.#addresses.forEach(each => URL.revokeObjectURL(each));
    this.node.remove();
  }
}
