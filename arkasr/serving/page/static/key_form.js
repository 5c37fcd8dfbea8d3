// The field for the API key. It is shown only if the service asks for a key.

import { getKey, keyIsAccepted, setKey } from "./service.js";

export class KeyForm {
  #form;
  #field;
  #note;
  #refused = new Set(); // cards that wait for a key

  constructor(form) {
    this.#form = form;
    this.#field = form.querySelector("input");
    this.#note = form.querySelector("#key-note");
    form.onsubmit = event => {
      event.preventDefault();
      this.#use(this.#field.value.trim());
    };
  }

  #show(note) {
    this.#form.hidden = false;
    this.#note.textContent = note;
  }

  get isOpen() {
    return !this.#form.hidden;
  }

  /** Ask for a key, for a card that was refused. The card is sent again with it. */
  ask(card) {
    this.#refused.add(card);
    this.#show(getKey() ? "The service does not accept the key that was entered before." : "The service asks for a key. It is kept until you close this tab.");
    if (!this.#form.contains(document.activeElement)) this.#field.focus();
  }

  /** Ask for a key if the service needs one, before the first file is sent. */
  async probe() {
    try {
      if (!(await keyIsAccepted(getKey()))) this.#show("The service asks for a key. It is kept until you close this tab.");
    } catch {
      // The first file shows what is wrong with the connection.
    }
  }

  async #use(key) {
    let accepted;
    try {
      accepted = /^[\x21-\x7e]+$/.test(key) && (await keyIsAccepted(key)); // other characters fit in no header
    } catch {
      this.#note.textContent = "No connection to the service. Try again.";
      return;
    }
    if (!accepted) {
      this.#note.textContent = "The service does not accept this key. Check it and enter it again.";
      this.#field.select();
      return;
    }
    setKey(key);
    this.#form.hidden = true;
    this.#field.value = "";
    document.getElementById("choose").focus();
    const cards = [...this.#refused].filter(card => card.node.isConnected);
    this.#refused.clear();
    cards.forEach(card => card.again());
  }
}
