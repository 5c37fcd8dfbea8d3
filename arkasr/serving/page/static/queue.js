const AT_ONCE = 3; // browsers open at most six connections to a service

/** Runs cards in their order, a few at once. */
export class Queue {
  #waiting = [];
  #running = 0;

  add(card) {
    this.#waiting.push(card);
    this.#next();
  }

  /** Whether something would be lost if the page were closed. */
  get isBusy() {
    return this.#running > 0;
  }

  #next() {
    while (this.#running < AT_ONCE && this.#waiting.length) {
      const card = this.#waiting.shift();
      if (!card.waiting) continue; // cancelled or removed meanwhile
      this.#running += 1;
      card.run().finally(() => {
        this.#running -= 1;
        this.#next();
      });
    }
  }
}
