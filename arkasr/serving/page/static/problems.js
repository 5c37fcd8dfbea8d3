// Every failure in words: what is wrong, and what to do.

import { size } from "./formats.js";

const FORMATS = "WAV, FLAC, MP3, M4A, Ogg or WebM";

/** A failure of one file. `retry`: seconds after which a new try is worth it, or null. `key`: a key is needed. */
export class Problem extends Error {
  constructor(what, advice, { retry = null, key = false } = {}) {
    super(what);
    Object.assign(this, { what, advice, retry, key });
  }
}

const STATUSES = {
  400: ["The service cannot use this file.", `Check that it is audio, for example ${FORMATS}, and that the language is right.`],
  401: ["The service asks for an API key.", "Enter the key at the top of this page. The file is then sent again."],
  403: ["The service refuses this request.", "Ask whoever runs the service for access."],
  404: ["The service does not know this address or this model.", "Reload the page: the service may have changed."],
  408: ["The upload took too long.", "Try again with a better connection, or with a smaller file."],
  413: ["The file is too large or too long for this service.", "Cut it into parts, or compress it to MP3, M4A or Opus."],
  415: ["The service cannot read this type of file.", `Convert it to ${FORMATS}.`],
  429: ["The service is busy.", "Wait a moment, then try again."],
  500: ["The service failed on this file.", "Try again. If it fails again, the log of the service says why."],
  502: ["The service does not answer.", "Check that it runs, then try again."],
  503: ["The service has no room for this file now.", "Wait a moment, then try again."],
  504: ["The transcription took longer than the service allows.", "Try again later, or cut the file into parts."],
  507: ["The service has no space left on its disk.", "Tell whoever runs it."],
};
// Statuses whose own message names the fault of this file, and what to do.
const OWN_MESSAGE = new Set([400, 413, 415]);

/** Words for an answer that is not a result. `message` is the service's, or "". `after` is its Retry-After. */
export function ofStatus(status, message, after) {
  const known = STATUSES[status === 422 ? 400 : status] ?? STATUSES[status >= 500 ? 500 : 400];
  const [what, advice] = known;
  const said = message.trim();
  const retry = status === 429 || (status === 503 && after) ? Math.min(Math.max(Number(after) || 5, 1), 60) : null;
  const own = OWN_MESSAGE.has(status) || known === STATUSES[400];
  const shown = !said ? advice : own ? said : `${advice} The service says: ${said}`;
  return new Problem(what, shown, { retry, key: status === 401 });
}

export const cancelled = () => new Problem("Cancelled.", "");
export const empty = () => new Problem("The file is empty.", "It has 0 bytes. Choose another file.");
export const unreadable = () =>
  new Problem("The browser cannot read this file.", "It may be a folder, or it was moved or changed. Choose it again.");
export const tooLarge = (bytes, limit) =>
  new Problem(`The file is too large: ${size(bytes)}.`, `This service takes files up to ${size(limit)}. Cut it into parts, or compress it to MP3, M4A or Opus.`);
export const unreachable = () =>
  new Problem("No connection to the service.", "Check your network, and that the service runs. Then try again.");
export const uploadBroken = bytes =>
  new Problem("The connection broke off while the file was sent.", `Try again. If it happens again, the file (${size(bytes)}) may be too large for a proxy before the service.`);
export const broken = () =>
  new Problem("The connection to the service broke off.", "Try again.");
export const failedLate = message =>
  new Problem("The service stopped in the middle of this file.", message ? `The service says: ${message}` : "Try again.");
export const unclear = () =>
  new Problem("The service sent an answer that this page cannot read.", "Reload the page. It may be older than the service.");
