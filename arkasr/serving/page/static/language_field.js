// The field for the language: a list that is searched by typing a name or a code, as ARIA's combobox describes it.

const PAGE_KEYS = { PageUp: -8, PageDown: 8, ArrowUp: -1, ArrowDown: 1 };

/** Lower case without accents: "Français" as "francais". */
const fold = text => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase().trim();

/** What speakers call their language, or "" if the browser does not know. */
function ownName({ code, name }) {
  if (!Intl.DisplayNames?.supportedLocalesOf(code).length) return "";
  const own = new Intl.DisplayNames(code, { type: "language", fallback: "none" }).of(code) ?? "";
  return fold(own) === fold(name) ? "" : own;
}

/** How well a language matches what was typed: 0 is best, null does not match. */
function rank({ code, names }, typed) {
  if (code === typed || names.includes(typed)) return 0;
  if (names.some(name => name.startsWith(typed))) return 1;
  if (names.some(name => name.split(/[\s(-]+/).some(word => word.startsWith(typed)))) return 2;
  return names.some(name => name.includes(typed)) ? 3 : null;
}

export class LanguageField {
  #field;
  #list;
  #note;
  #languages;
  #chosen;
  #options = []; // {language, node} as they are shown
  #active = -1;
  #touched = false; // whether a key was pressed since the list was opened

  /** `languages`: `{code, name}`. `trained`: codes of those that come first. `code`: the one that is chosen at first. */
  constructor({ field, list, note }, languages, trained, code) {
    [this.#field, this.#list, this.#note] = [field, list, note];
    this.#languages = languages.map(each => {
      const own = ownName(each);
      return { ...each, own, names: [each.name, own].filter(Boolean).map(fold), isTrained: trained.includes(each.code) };
    });
    this.#chosen = this.#languages.find(each => each.code === code) ?? this.#languages[0];
    field.disabled = languages.length < 2;
    field.onfocus = () => field.select();
    field.onclick = () => this.#isOpen || (field.select(), this.#open(""));
    field.oninput = () => this.#search();
    field.onblur = () => this.#leave();
    field.onkeydown = event => this.#press(event);
    list.onmousedown = event => event.preventDefault(); // the field keeps the focus
    list.onclick = event => {
      const at = this.#options.findIndex(({ node }) => node.contains(event.target));
      if (at >= 0) this.#choose(at);
    };
    this.#close();
  }

  /** The chosen language. What was typed counts, also if the list is still open. */
  get chosen() {
    if (this.#isOpen) this.#leave();
    return this.#chosen;
  }

  get #isOpen() {
    return !this.#list.hidden;
  }

  #search() {
    this.#touched = true;
    this.#open(fold(this.#field.value));
  }

  #open(typed) {
    const found = this.#languages.map(each => ({ each, at: typed ? rank(each, typed) : Number(!each.isTrained) }));
    const shown = found.filter(({ at }) => at !== null).sort((a, b) => a.at - b.at).map(({ each }) => each);
    this.#options = shown.map(language => ({ language, node: this.#option(language) }));
    const trained = typed ? [] : this.#options.filter(({ language }) => language.isTrained);
    const others = this.#options.filter(each => !trained.includes(each)).map(({ node }) => node);
    const groups = trained.length && others.length ? [this.#group("Languages of this model", trained.map(({ node }) => node)), this.#group("Other languages", others)] : this.#options.map(({ node }) => node);
    this.#list.replaceChildren(...groups);
    this.#list.hidden = !shown.length;
    this.#field.setAttribute("aria-expanded", String(this.#isOpen));
    this.#note.textContent = shown.length ? "" : `No language matches. ${this.#chosen.name} stays chosen.`;
    this.#activate(typed ? 0 : shown.indexOf(this.#chosen));
  }

  #group(title, nodes) {
    const [group, head] = [document.createElement("div"), document.createElement("p")];
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", title);
    head.textContent = title;
    head.className = "quiet";
    head.setAttribute("aria-hidden", "true");
    group.append(head, ...nodes);
    return group;
  }

  #option(language) {
    const [node, own] = [document.createElement("div"), document.createElement("span")];
    node.id = `language-${language.code}`;
    node.setAttribute("role", "option");
    node.setAttribute("aria-selected", String(language === this.#chosen));
    own.textContent = language.own;
    own.className = "quiet";
    own.lang = language.code;
    node.append(language.name, " ", own);
    return node;
  }

  #activate(at) {
    this.#options[this.#active]?.node.classList.remove("active");
    this.#active = Math.min(Math.max(at, 0), this.#options.length - 1);
    const node = this.#options[this.#active]?.node;
    this.#field.setAttribute("aria-activedescendant", node?.id ?? "");
    if (!node) return;
    node.classList.add("active");
    const [top, bottom] = [node.offsetTop, node.offsetTop + node.offsetHeight];
    const { scrollTop, clientHeight } = this.#list; // scroll the list, never the page
    if (top < scrollTop || bottom > scrollTop + clientHeight) this.#list.scrollTop = top - clientHeight / 2;
  }

  #press(event) {
    if (event.isComposing || event.ctrlKey || event.metaKey) return;
    if (event.key in PAGE_KEYS) {
      if (!this.#isOpen) this.#open("");
      else this.#activate(this.#active + PAGE_KEYS[event.key]);
      this.#touched = true;
    } else if (event.key === "Enter" && this.#isOpen) this.#choose(this.#active);
    else if (event.key === "Escape") this.#close();
    else return;
    event.preventDefault();
  }

  #choose(at) {
    this.#chosen = this.#options[at].language;
    this.#close();
    this.#field.select();
  }

  /** Take the active language if a key was pressed, as lists of the system do. */
  #leave() {
    if (this.#isOpen && this.#touched) this.#chosen = this.#options[this.#active].language;
    this.#close();
  }

  #close() {
    this.#list.hidden = true;
    this.#touched = false;
    this.#note.textContent = "";
    this.#field.value = this.#chosen.name;
    this.#field.setAttribute("aria-expanded", "false");
    this.#field.setAttribute("aria-activedescendant", "");
  }
}
