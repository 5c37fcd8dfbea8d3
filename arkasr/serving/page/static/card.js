// One file: its progress, then its result or its problem.

import { copy } from "./clipboard.js";
import { clock, size } from "./formats.js";
import { Player } from "./player.js";
import { check, transcribe } from "./service.js";
import { Problem, cancelled, ofStatus, unclear } from "./problems.js";
import { Transcript } from "./transcript.js";

const COPIED_MS = 2500;
const MAX_TRIES = 6; // while the service is busy

const withoutEnding = name => name.replace(/\.[^.]+$/, "") || name;

const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(cancelled())));
  });

export class Card {
  #part;
  #player;
  #transcript;
  #abort = new AbortController();
  #addresses = [];
  #facts;
  #result = null;
  #playable = true;
  #recognised = 0; // seconds

  /**
   * `actions`: `settings`, `language()` the chosen `{code, name}`, `enqueue(card)`, `announce(text)`, `removed(card)`,
   * `isKeyMissing()`, `needsKey(card)`.
   */
  constructor(file, actions) {
    this.file = file;
    this.actions = actions;
    this.node = document.querySelector("#card").content.firstElementChild.cloneNode(true);
    this.#part = name => this.node.querySelector(name);
    this.#part("h2").textContent = file.name;
    this.#facts = { length: null, size: size(file.size), language: null };
    this.#part(".transcript").setAttribute("aria-label", `Transcript of ${file.name}`);
    this.#part(".remove").setAttribute("aria-label", `Remove ${file.name}`);
    this.#part(".remove").onclick = () => this.#remove();
    this.#part(".cancel").onclick = () => this.#abort.abort();
    this.#part(".again").onclick = () => this.again();
    this.#part(".copy").onclick = () => this.#copy();
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
    this.#wait();
  }

  #setFacts(facts) {
    Object.assign(this.#facts, facts);
    this.#part(".facts").textContent = Object.values(this.#facts).filter(Boolean).join(" · ");
  }

  #state(text, part = null) {
    this.#part(".state").textContent = text;
    const bar = this.#part("progress");
    bar.setAttribute("aria-label", `${this.file.name}: ${text}`);
    if (part === null) bar.removeAttribute("value");
    else bar.value = part;
  }

  #show({ work = false, problem = false, after = false }) {
    const shown = { ".work": work, ".problem": problem, ".after": after };
    const focused = this.#part(".work").contains(document.activeElement);
    Object.entries(shown).forEach(([name, visible]) => (this.#part(name).hidden = !visible));
    if (focused && !work) this.#part(".again").focus(); // a hidden button must not keep the focus
  }

  /** Wait for a turn. `run` is called when it comes. */
  #wait() {
    this.#abort = new AbortController();
    this.#setFacts({ language: this.actions.language().name });
    this.language = this.actions.language().code;
    this.#state("Waiting for its turn", 0);
    this.#show({ work: true });
    this.#abort.signal.addEventListener("abort", () => this.waiting && this.#fail(cancelled()));
    this.waiting = true;
  }

  again() {
    this.#wait();
    this.#part(".cancel").focus();
    this.actions.enqueue(this);
  }

  /** Send the file, wait while the service is busy, show the result or the problem. */
  async run() {
    this.waiting = false;
    try {
      await check(this.file, this.actions.settings);
      if (this.actions.isKeyMissing()) throw ofStatus(401, "", null); // a refused upload would be in vain
      for (let tries = 1; ; tries += 1) {
        try {
          this.#succeed(await this.#send());
          return;
        } catch (problem) {
          if (!problem.retry || tries === MAX_TRIES) throw problem;
          await this.#countDown(problem.retry * (1 + Math.random()) * tries);
        }
      }
    } catch (problem) {
      if (!(problem instanceof Problem)) console.error(problem);
      this.#fail(problem instanceof Problem ? problem : unclear());
    }
  }

  #send() {
    this.#recognised = 0;
    this.#state("Sending", 0);
    return transcribe(this.file, this.language, this.actions.settings, {
      signal: this.#abort.signal,
      onUpload: part => (part < 1 ? this.#state(`Sending: ${Math.floor(part * 100)} %`, part) : this.#state("Recognising speech")),
      onText: (text, seconds) => {
        this.#part(".transcript").hidden = false;
        this.#transcript.grow(text);
        this.#recognised = seconds ?? 0;
        this.#showProgress();
      },
    });
  }

  /** Say how much is recognised, once both that and the length of the audio are known. */
  #showProgress() {
    const [seconds, length] = [this.#recognised, this.#player.length];
    if (seconds && length) this.#state(`Recognised ${clock(seconds)} of ${clock(length)}`, Math.min(seconds / length, 1));
  }

  async #countDown(seconds) {
    for (let left = Math.ceil(seconds); left > 0; left -= 1) {
      this.#state(`The service is busy. Next try in ${left} s`);
      await pause(1, this.#abort.signal);
    }
  }

  #succeed(result) {
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
    else this.#part(".transcript").replaceChildren(this.#nothingHeard());
    this.#part(".notes").replaceChildren(...notes.map(note => Object.assign(document.createElement("li"), { textContent: note })));
    this.#part(".notes").hidden = !notes.length;
    this.#offer(".txt", spoken && `${spoken}\n`);
    this.#offer(".srt", srt);
    this.#part(".copy").hidden = !spoken;
    this.#part(".again").textContent = "Transcribe again";
    this.#show({ after: true });
    this.actions.announce(`${this.file.name} is transcribed. ${spoken || "No speech was found."}`);
  }

  /** Say why there is no player, once there is a result. A file that is no audio has a problem to show instead. */
  #showUnplayable() {
    this.#part(".unplayable").hidden = this.#playable || !this.#result;
  }

  #nothingHeard() {
    const said = document.createElement("p");
    said.className = "none";
    said.textContent = "No speech was found.";
    return said;
  }

  #offer(ending, content) {
    const link = this.#part(ending);
    link.hidden = !content;
    if (!content) return;
    link.href = URL.createObjectURL(new Blob([content], { type: "text/plain;charset=utf-8" }));
    link.download = withoutEnding(this.file.name) + ending;
    this.#addresses.push(link.href);
  }

  #fail(problem) {
    this.waiting = false;
    const transcript = this.#part(".transcript");
    if (this.#result) this.#transcript.show(this.#result); // of an earlier try
    const left = this.#result ? " The text below is from the try before." : transcript.textContent ? " The text below is incomplete." : "";
    this.#part(".what").textContent = problem.what;
    this.#part(".advice").textContent = `${problem.advice}${left}`.trim();
    this.#part(".again").textContent = "Try again";
    this.#show({ problem: true, after: true });
    if (problem.key) this.actions.needsKey(this);
  }

  async #copy() {
    const button = this.#part(".copy");
    const done = await copy(this.#result.text.trim());
    button.textContent = done ? "Copied" : "Not copied: select the text";
    this.actions.announce(button.textContent);
    setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
  }

  #remove() {
    this.#abort.abort();
    this.#player.remove();
    this.#addresses.forEach(each => URL.revokeObjectURL(each));
    this.actions.removed(this);
    this.node.remove();
  }
}
