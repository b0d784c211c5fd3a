// What the visitor has done to form fields, and where the focus is: put back after a page changed.
//
// A field that was touched keeps what is in it, even if another field of its name has taken its
// place, at once or later: an author cuts what is to be pasted elsewhere. A field that was not
// touched shows what the server says. A browser keeps the two apart only until a field is first
// written to, so they are told apart here by comparing values.

const idOf = (node) => plain(node).getAttribute?.("id") ?? "";

// How an element is found again in the changed page: by its id, or a field by its name.
function selectorFor(element) {
  const id = idOf(element);
  if (id) return "#" + CSS.escape(id);
  const { localName } = plain(element);
  const name = plain(element).getAttribute("name");
  if (!name) return "";
  const isChoice = ["radio", "checkbox"].includes(element.type);
  const value = isChoice ? element.getAttribute("value") : null;
  const which = value === null ? "" : `[value="${CSS.escape(value)}"]`;
  return `${localName}[name="${CSS.escape(name)}"]${which}`;
}

class FormState {
  static typed = new WeakSet();
  static gone = new Map(); // by selector: the touched fields that are not in the page at present

  constructor() {
    const fields = document.querySelectorAll("input, textarea, select");
    this.fields = [...fields].map((field) => new FieldState(field));
    this.active = document.activeElement;
    this.selector = this.active && this.active !== document.body && selectorFor(this.active);
    this.selection = selectionIn(this.active);
  }

  restore() {
    const known = new Set(this.fields.map((field) => field.element));
    const { gone } = FormState;
    for (const field of gone.values()) if (field.restore(known)) gone.delete(field.selector);
    for (const field of this.fields) {
      if (!field.restore(known)) gone.set(field.selector, field);
    }
    this.restoreFocus();
  }

  restoreFocus() {
    const { selector } = this;
    let { active } = this;
    if (!plain(active)?.isConnected) active = selector && document.querySelector(selector);
    if (!active || active === document.body) return;
    if (active !== document.activeElement) plain(active).focus({ preventScroll: true });
    if (!this.selection || String(selectionIn(active)) === String(this.selection)) return;
    active.setSelectionRange(...this.selection);
  }
}

for (const event of ["input", "change"]) {
  addEventListener(event, ({ target }) => FormState.typed.add(target), true);
}

function selectionIn(element) {
  const { selectionStart, selectionEnd, selectionDirection } = element ?? {};
  if (typeof selectionStart !== "number") return null;
  return [selectionStart, selectionEnd, selectionDirection];
}

// A form field, and what the visitor chose in it, if anything.
class FieldState {
  constructor(element) {
    this.element = element;
    this.selector = selectorFor(element);
    this.kind = kindOf(element);
    this.isTouched = this.kind.isTouched(element);
    this.value = this.kind.read(element);
  }

  // *known* are the fields that were there before: none of them takes another one's value. Returns
  // false if there is none that could.
  restore(known) {
    let { element } = this;
    if (!element.isConnected) {
      if (!this.isTouched || !this.selector) return true;
      element = document.querySelector(this.selector);
      if (!element || known.has(element)) return false;
    }
    if (this.isTouched) this.kind.write(element, this.value);
    else this.kind.reset(element);
    return true;
  }
}

function kindOf(element) {
  if (element.localName === "select") return select;
  if (element.isContentEditable) return editable;
  return /^(checkbox|radio)$/.test(element.type) ? checkable : textField;
}

const textField = {
  isTouched(field) {
    if (field.type === "file" || field.value === field.defaultValue) return false;
    // A slider or a colour has a value of its own where the page gives none.
    return !/^(range|color)$/.test(field.type) || FormState.typed.has(field);
  },
  read: (field) => field.value,
  write(field, value) {
    if (value !== field.value && field.type !== "file") field.value = value;
  },
  reset(field) {
    if (!/^(file|range|color)$/.test(field.type)) textField.write(field, field.defaultValue);
  },
};

// Not a field. A change of the page leaves it alone; what is typed in it goes only with a reload.
const editable = {
  isTouched: (element) => FormState.typed.has(element),
  read: (element) => element.innerHTML,
  write(element, html) {
    try {
      element.innerHTML = html;
    } catch {
      // Trusted types: the page's policy does not allow it.
    }
  },
};

const checkable = {
  isTouched: (field) => field.checked !== field.defaultChecked,
  read: (field) => field.checked,
  write(field, checked) {
    if (checked !== field.checked) field.checked = checked;
  },
  reset: (field) => checkable.write(field, field.defaultChecked),
};

const select = {
  isTouched: (field) => String(select.read(field)) !== String(select.defaults(field)),
  read: (field) => [...field.selectedOptions].map((option) => option.value),
  // The values that a browser selects by itself.
  defaults(field) {
    const marked = [...field.options].filter((option) => option.defaultSelected);
    if (field.multiple) return marked.map((option) => option.value);
    if (marked.length) return [marked.at(-1).value];
    if (field.size > 1) return [];
    const first = [...field.options].find((option) => !option.disabled);
    return first ? [first.value] : [];
  },
  write(field, values) {
    const wanted = [...field.options].filter((option) => values.includes(option.value));
    if (!wanted.length && values.length) return; // what was chosen is no longer offered
    for (const option of field.options) {
      const selected = wanted.includes(option);
      if (option.selected !== selected) option.selected = selected;
    }
  },
  reset: (field) => select.write(field, select.defaults(field)),
};
