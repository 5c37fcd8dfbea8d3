/** Copy a text. Returns whether it worked. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text); // only over https and on this computer itself
    return true;
  } catch {
    const field = document.createElement("textarea");
    const focused = document.activeElement;
    field.value = text;
    field.className = "unseen";
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    focused?.focus();
    return done;
  }
}
