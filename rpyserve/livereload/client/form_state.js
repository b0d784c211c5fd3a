// What the visitor has done to the fields of forms, and where the focus is: put back after a page has changed.
//
// A field that was touched keeps what is in it, even if another field of its name has taken its place. One that was not
// touched shows what the server says. A browser keeps the two apart only until a field is first written to, so it is
// told here by comparing.

const idOf = (node) => node.getAttribute?.("id") ?? ""; // a form's .id may be a field of that name

// How an element is found again in the changed page: by its id, or a field by its name.
function markOf(element) {
  const id = idOf(element);
  if (id) return "#" + CSS.escape(id);
  const name = element.getAttribute("name");
  const value = ["radio", "checkbox"].includes(element.type) ? `[value="${CSS.escape(element.value)}"]` : "";
  return name && `${element.localName}[name="${CSS.escape(name)}"]${value}`;
}

class Visitor {
  static typed = new WeakSet();

  constructor() {
    this.fields = [...document.querySelectorAll("input, textarea, select")].map((field) => new Field(field));
    this.active = document.activeElement;
    this.mark = this.active && this.active !== document.body && markOf(this.active);
    this.caret = caretOf(this.active);
  }

  restore() {
    const known = new Set(this.fields.map((field) => field.element));
    for (const field of this.fields) field.restore(known);
    this.focus();
  }

  focus() {
    let { active } = this;
    if (!active?.isConnected) active = this.mark && document.querySelector(this.mark);
    if (!active || active === document.body) return;
    if (active !== document.activeElement) active.focus({ preventScroll: true });
    if (this.caret && String(caretOf(active)) !== String(this.caret)) active.setSelectionRange(...this.caret);
  }
}

for (const event of ["input", "change"]) addEventListener(event, ({ target }) => Visitor.typed.add(target), true);

function caretOf(element) {
  const { selectionStart: start, selectionEnd: end, selectionDirection: direction } = element ?? {};
  return typeof start === "number" ? [start, end, direction] : null;
}

// A form field and what the visitor chose in it, if anything: it then stays, even in another field of the same name.
class Field {
  constructor(element) {
    this.element = element;
    this.mark = markOf(element);
    this.how = element.localName === "select" ? Choice : /^(checkbox|radio)$/.test(element.type) ? Tick : Words;
    this.touched = this.how.touched(element);
    this.state = this.how.state(element);
  }

  restore(known) {
    let { element } = this;
    if (!element.isConnected) {
      element = this.touched && this.mark && document.querySelector(this.mark);
      if (!element || known.has(element)) return;
    }
    if (this.touched) this.how.put(element, this.state);
    else this.how.reset(element);
  }
}

const Words = {
  // A slider or a colour has a value of its own where the page gives none.
  touched: (field) =>
    field.type !== "file" &&
    field.value !== field.defaultValue &&
    (!/^(range|color)$/.test(field.type) || Visitor.typed.has(field)),
  state: (field) => field.value,
  put: (field, value) => value !== field.value && field.type !== "file" && (field.value = value),
  reset: (field) => /^(file|range|color)$/.test(field.type) || Words.put(field, field.defaultValue),
};

const Tick = {
  touched: (field) => field.checked !== field.defaultChecked,
  state: (field) => field.checked,
  put: (field, checked) => checked !== field.checked && (field.checked = checked),
  reset: (field) => Tick.put(field, field.defaultChecked),
};

const Choice = {
  touched: (field) => String(Choice.state(field)) !== String(Choice.usual(field)),
  state: (field) => [...field.selectedOptions].map((option) => option.value),
  usual(field) {
    const usual = [...field.options].filter((option) => option.defaultSelected);
    const first = field.multiple || field.size > 1 ? [] : [...field.options].filter((option) => !option.disabled);
    return (field.multiple ? usual : usual.length ? usual.slice(-1) : first.slice(0, 1)).map((option) => option.value);
  },
  put(field, values) {
    const there = [...field.options].filter((option) => values.includes(option.value));
    if (!there.length && values.length) return; // what was chosen is no longer offered
    for (const option of field.options) {
      if (option.selected !== there.includes(option)) option.selected = there.includes(option);
    }
  },
  reset: (field) => Choice.put(field, Choice.usual(field)),
};
