// One file on its way: it waits for its turn, is sent, and sent again while the service is busy.

import { CardView } from "./card_view.js";
import { Problem, cancelled, ofStatus, unclear } from "./problems.js";
import { check, transcribe } from "./service.js";

const MAX_TRIES = 6; // while the service is busy

const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(cancelled())));
  });

export class Card {
  #file;
  #actions;
  #view;
  #abort = new AbortController();
  #language;

  /**
   * `actions`: `settings`, `language()` the chosen `{code, name}`, `enqueue(card)`, `announce(text)`, `removed(card)`,
   * `isKeyMissing()`, `needsKey(card)`.
   */
  constructor(file, actions) {
    this.#file = file;
    this.#actions = actions;
    this.#view = new CardView(file, {
      onCancel: () => this.#abort.abort(),
      onAgain: () => this.again(),
      onRemove: () => this.#remove(),
      announce: actions.announce,
    });
    this.#wait();
  }

  get node() {
    return this.#view.node;
  }

  /** Wait for a turn. `run` is called when it comes. */
  #wait() {
    this.#abort = new AbortController();
    this.#language = this.#actions.language();
    this.#view.wait(this.#language.name);
    this.#abort.signal.addEventListener("abort", () => this.waiting && this.#fail(cancelled()));
    this.waiting = true;
  }

  again() {
    this.#wait();
    this.#view.focusCancel();
    this.#actions.enqueue(this);
  }

  /** Send the file, wait while the service is busy, show the result or the problem. */
  async run() {
    this.waiting = false;
    try {
      await check(this.#file, this.#actions.settings);
      if (this.#actions.isKeyMissing()) throw ofStatus(401, "", null); // a refused upload would be in vain
      for (let tries = 1; ; tries += 1) {
        try {
          this.#view.succeed(await this.#send());
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
    this.#view.send(0);
    return transcribe(this.#file, this.#language.code, this.#actions.settings, {
      signal: this.#abort.signal,
      onUpload: part => this.#view.send(part),
      onText: (text, seconds) => this.#view.grow(text, seconds),
    });
  }

  async #countDown(seconds) {
    for (let left = Math.ceil(seconds); left > 0; left -= 1) {
      this.#view.state(`The service is busy. Next try in ${left} s`);
      await pause(1, this.#abort.signal);
    }
  }

  #fail(problem) {
    this.waiting = false;
    this.#view.fail(problem);
    if (problem.key) this.#actions.needsKey(this);
  }

  #remove() {
    this.#abort.abort();
    this.#actions.removed(this);
    this.#view.remove();
  }
}
