// A transcript whose words, or segments, have times: lit while the audio plays, and clickable.

import { clock } from "./formats.js";

const LINGER = 0.25; // seconds that a word stays lit after its end
const ROUNDING = 0.005; // seconds
const HAS_LETTER = /[\p{L}\p{N}]/u;

/** Pieces of a text: its words, and what is between them. Null if the words are not all of the text in order. */
function cut(text, words) {
  const pieces = [];
  let at = 0;
  for (const timed of words) {
    const word = timed.word.trim();
    const found = text.indexOf(word, at);
    if (!word || found < 0 || HAS_LETTER.test(text.slice(at, found))) return null;
    if (found > at) pieces.push({ text: text.slice(at, found), timed: null });
    pieces.push({ text: word, timed });
    at = found + word.length;
  }
  if (HAS_LETTER.test(text.slice(at))) return null;
  if (at < text.length) pieces.push({ text: text.slice(at), timed: null });
  return pieces;
}

/** Paragraphs of pieces `{text, timed}`, one per segment. `timed` has a start and an end: of a word, else of the segment. */
export function paragraphs({ text, segments = [], words = [] }) {
  if (!segments.length) return [{ start: null, pieces: [{ text, timed: null }] }];
  let next = 0;
  return segments.map(segment => {
    const first = next;
    while (next < words.length && words[next].end <= segment.end + ROUNDING) next += 1;
    const pieces = next > first ? cut(segment.text, words.slice(first, next)) : null;
    return { start: segment.start, pieces: pieces ?? [{ text: segment.text, timed: segment }] };
  });
}

export class Transcript {
  #box;
  #timed = []; // {start, end, node} in order of time
  #lit = -1;

  /** `seek(seconds)` is called when a word is chosen, and `toggle()` to start or stop the audio. */
  constructor(box, seek, toggle) {
    this.#box = box;
    const choose = place => this.#timed[place] && seek(this.#timed[place].start);
    box.addEventListener("click", event => {
      const node = event.target.closest(".timed");
      if (node && getSelection().isCollapsed) choose(Number(node.dataset.place)); // not while text is selected
    });
    box.addEventListener("keydown", event => {
      if (event.target !== box || event.ctrlKey || event.metaKey || event.altKey) return;
      const moves = { ArrowLeft: this.#lit - 1, ArrowRight: this.#lit + 1, Home: 0, End: this.#timed.length - 1 };
      if (!this.#timed.length) return;
      if (event.key in moves) choose(Math.min(Math.max(moves[event.key], 0), this.#timed.length - 1));
      else if (event.key === " " || event.key === "Enter") toggle();
      else return;
      event.preventDefault();
    });
  }

  /** Show text that is still growing. */
  grow(text) {
    const atEnd = this.#box.scrollTop + this.#box.clientHeight >= this.#box.scrollHeight - 8;
    this.#box.textContent = text;
    if (atEnd) this.#box.scrollTop = this.#box.scrollHeight;
  }

  /** Show a result. All text goes into text nodes: a transcript may contain anything. */
  show(result) {
    this.#timed = [];
    this.#lit = -1;
    const parts = paragraphs(result);
    this.#box.replaceChildren(...parts.map(part => this.#paragraph(part, parts.length > 1)));
    this.#box.scrollTop = 0;
  }

  #paragraph({ start, pieces }, stamped) {
    const paragraph = document.createElement("p");
    pieces.forEach(piece => paragraph.append(piece.timed ? this.#word(piece) : piece.text));
    if (!stamped) return paragraph;
    const [part, stamp] = [document.createElement("div"), document.createElement("span")];
    part.className = "part";
    stamp.className = "stamp clock";
    stamp.textContent = clock(start);
    part.append(stamp, paragraph);
    return part;
  }

  #word({ text, timed }) {
    const node = document.createElement("span");
    node.className = "timed";
    node.dataset.place = this.#timed.length;
    node.textContent = text;
    this.#timed.push({ start: timed.start, end: timed.end, node });
    return node;
  }

  get isTimed() {
    return this.#timed.length > 0;
  }

  /** Light what is said at a time, or nothing. */
  light(seconds) {
    const place = this.#lastStarted(seconds);
    const over = place < 0 || seconds >= this.#timed[place].end + LINGER;
    if (place !== this.#lit) {
      this.#timed[this.#lit]?.node.classList.remove("lit");
      this.#lit = place;
      if (!over) this.#reveal(this.#timed[place].node);
    }
    this.#timed[place]?.node.classList.toggle("lit", !over);
  }

  #lastStarted(seconds) {
    let [low, high] = [0, this.#timed.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#timed[middle].start <= seconds + 0.001) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** Scroll the box, never the page. */
  #reveal(node) {
    const box = this.#box;
    const [top, bottom] = [node.offsetTop, node.offsetTop + node.offsetHeight];
    if (top < box.scrollTop || bottom > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 3;
  }
}
