// Requests to the service. Addresses are relative, so that the page works under any prefix of a proxy.

import * as problems from "./problems.js";

const KEY = "arkasr-key";

export const getKey = () => sessionStorage.getItem(KEY) ?? "";
export const setKey = key => sessionStorage.setItem(KEY, key);

const authorization = key => (key ? { Authorization: `Bearer ${key}` } : {});

/** Whether the service accepts the key, or needs none. Failures of other kinds show up with the first file. */
export async function keyIsAccepted(key) {
  const answer = await fetch("v1/models", { headers: authorization(key) });
  return answer.status !== 401;
}

export async function readSettings() {
  const answer = await fetch("page/settings.json");
  if (!answer.ok) throw problems.ofStatus(answer.status, "", null);
  return answer.json();
}

/** Throw the problem of a file that is not worth sending. */
export async function check(file, { max_bytes: limit }) {
  if (limit && file.size > limit) throw problems.tooLarge(file.size, limit);
  try {
    await file.slice(0, 1).arrayBuffer(); // fails for folders, and for files that are gone
  } catch {
    throw problems.unreadable();
  }
  if (!file.size) throw problems.empty();
}

function form(file, language, settings) {
  const fields = new FormData();
  fields.append("model", settings.model);
  fields.append("language", language);
  fields.append("response_format", "verbose_json");
  fields.append("timestamp_granularities[]", "segment");
  if (settings.word_times) fields.append("timestamp_granularities[]", "word");
  fields.append("stream", "true");
  fields.append("file", file, file.name);
  return fields;
}

/** Reads server-sent events from a text that grows. */
class Events {
  #read = 0;

  /** Return the events that are new and whole. */
  next(text) {
    const end = text.lastIndexOf("\n\n") + 2;
    if (end < 2 || end <= this.#read) return [];
    const blocks = text.slice(this.#read, end).split(/\n\n+/);
    this.#read = end;
    const data = blocks.map(block => block.split("\n").filter(line => line.startsWith("data:")).map(line => line.slice(5)).join("\n").trim());
    return data.filter(each => each && each !== "[DONE]").map(each => JSON.parse(each));
  }
}

function messageOf(text) {
  try {
    const { error, detail } = JSON.parse(text);
    const message = error?.message ?? error ?? detail;
    return typeof message === "string" ? message : "";
  } catch {
    return ""; // a page of a proxy
  }
}

/**
 * Transcribe one file. XMLHttpRequest, because fetch does not report the progress of an upload.
 *
 * `onUpload(part)` gets the part that is sent, from 0 to 1. `onText(text, seconds)` gets the text so far,
 * and how much of the audio it covers.
 * Resolves with the event `transcript.text.done`, rejects with a Problem.
 */
export function transcribe(file, language, settings, { signal, onUpload, onText }) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) throw problems.cancelled();
    const request = new XMLHttpRequest();
    const events = new Events();
    let [text, result, late, sent] = ["", null, null, 0];
    const upload = part => onUpload((sent = part));
    const isStream = () => request.status === 200 && (request.getResponseHeader("Content-Type") ?? "").startsWith("text/event-stream");
    const take = event => {
      if (event.error) late = problems.failedLate(messageOf(JSON.stringify(event)));
      else if (event.type === "transcript.text.delta") onText((text += event.delta), event.seconds);
      else if (event.type === "transcript.text.done") result = event;
    };
    const read = () => {
      if (!isStream()) return;
      events.next(request.responseText.replaceAll("\r\n", "\n")).forEach(take);
    };
    const finish = () => {
      if (request.status !== 200) return reject(problems.ofStatus(request.status, messageOf(request.responseText), request.getResponseHeader("Retry-After")));
      if (!isStream()) return reject(problems.unclear());
      read();
      return result ? resolve(result) : reject(late ?? problems.broken());
    };
    const guarded = step => () => {
      try {
        step();
      } catch {
        request.abort();
        reject(problems.unclear());
      }
    };
    request.open("POST", "v1/audio/transcriptions");
    Object.entries(authorization(getKey())).forEach(header => request.setRequestHeader(...header));
    request.upload.onprogress = event => event.lengthComputable && upload(event.loaded / event.total);
    request.upload.onload = () => upload(1);
    request.onprogress = guarded(read);
    request.onload = guarded(finish);
    request.onerror = () => { // of a stream that breaks off soon, a browser may give neither status nor text
      const problem = sent === 1 ? problems.broken() : sent > 0 ? problems.uploadBroken(file.size) : problems.unreachable();
      check(file, settings).then(() => reject(problem), reject); // the file may have changed while it was sent
    };
    request.onabort = () => reject(problems.cancelled());
    signal.addEventListener("abort", () => request.abort());
    request.send(form(file, language, settings));
  });
}
