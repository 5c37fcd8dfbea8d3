// The page: what is added becomes a card, and cards wait for their turn.

import { Card } from "./card.js";
import { size, spokenTime } from "./formats.js";
import { KeyForm } from "./key_form.js";
import { LanguageField } from "./language_field.js";
import { Queue } from "./queue.js";
import { RecordingPanel } from "./recording_panel.js";
import { readSettings } from "./service.js";

const at = id => document.getElementById(id);
const queue = new Queue();
const keyForm = new KeyForm(at("key-form"));

function showTrouble(text) {
  at("trouble").textContent = text;
  at("trouble").hidden = false;
}

function announce(text) {
  at("announce").textContent = text;
}

function add(files, settings, languageField) {
  const actions = {
    settings,
    language: () => languageField.chosen,
    announce,
    enqueue: card => queue.add(card),
    isKeyMissing: () => keyForm.isOpen,
    needsKey: card => keyForm.ask(card),
    removed: () => at("results").focus({ preventScroll: true }),
  };
  const cards = files.map(file => new Card(file, actions));
  at("results").prepend(...cards.map(card => card.node));
  cards.forEach(card => queue.add(card));
  if (cards.length > 1) announce(`${cards.length} files were added.`);
}

function takeDrops(take) {
  const hasFiles = event => event.dataTransfer?.types.includes("Files");
  const mark = on => document.body.classList.toggle("dragging", on);
  // On the whole window: a file that is dropped beside the box would replace the page.
  addEventListener("dragover", event => hasFiles(event) && (event.preventDefault(), mark(true)));
  addEventListener("dragleave", event => event.relatedTarget === null && mark(false));
  addEventListener("drop", event => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(false);
    take([...event.dataTransfer.files]);
  });
}

function describe({ model, max_bytes: bytes, max_seconds: seconds }) {
  at("model").textContent = `Model: ${model}`;
  const limits = [bytes && size(bytes), seconds && spokenTime(seconds)].filter(Boolean);
  at("limits").textContent = `Any audio or video format.${limits.length ? ` At most ${limits.join(" and ")} per file.` : ""}`;
}

async function start() {
  let settings;
  try {
    settings = await readSettings();
  } catch {
    showTrouble("The service does not answer. Check that it runs, then reload this page.");
    return;
  }
  describe(settings);
  const parts = { field: at("language"), list: at("language-list"), note: at("language-note") };
  const languageField = new LanguageField(parts, settings.languages, settings.trained, settings.language);
  const take = files => files.length && add(files, settings, languageField);
  takeDrops(take);
  at("choose").onclick = () => at("files").click();
  at("files").onchange = () => {
    take([...at("files").files]);
    at("files").value = ""; // the same file can be chosen again
  };
  const recording = new RecordingPanel(take, settings.max_seconds);
  addEventListener("beforeunload", event => (queue.isBusy || recording.isOpen) && event.preventDefault());
  document.body.dataset.ready = "";
  await keyForm.probe();
}

start();
