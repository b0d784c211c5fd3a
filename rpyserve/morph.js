// Morphing: the live document is made to show what the server sends now.
//
// It is never compared with what the server sends now, but only what the server sent before is ("the shadow"). Each
// difference between the two is made to the shadow and to the live document alike, and nothing else is touched. So what
// the visitor opened, resized or played, and what an extension of the browser put in, stays without a rule of its own.
// Knows nothing of the network, and nothing of why the page has changed.

const INERT = document.implementation.createHTMLDocument(""); // images in it are not loaded

class Mirror {
  constructor() {
    this.live = new WeakMap(); // from each node of the shadow to its live twin
    this.shadow = INERT.importNode(document.documentElement, true);
    this.twin(this.shadow, document.documentElement);
  }

  // Makes the live document show *next*, another document's root, which is used up.
  show(next) {
    const visitor = new Visitor();
    this.morph(this.shadow, next);
    visitor.restore();
  }

  // From now on *live* stands where *old* stood.
  replace(old, live) {
    for (const node of this.shadow.querySelectorAll(old.localName)) {
      if (this.live.get(node) === old) this.live.set(node, live);
    }
  }

  twin(shadow, live) {
    const [one, two] = [shadow, live].map((root) => document.createTreeWalker(root));
    do this.live.set(one.currentNode, two.currentNode);
    while (one.nextNode() && two.nextNode());
  }

  morph(old, next) {
    if (old.isEqualNode(next)) return;
    const live = this.live.get(old);
    if (old.nodeType !== Node.ELEMENT_NODE) {
      live.data = old.data = next.data;
      return;
    }
    this.attributes(old, next, live);
    this.children(old, next, live);
  }

  attributes(old, next, live) {
    for (const { namespaceURI, localName } of [...old.attributes]) {
      if (next.hasAttributeNS(namespaceURI, localName)) continue;
      for (const element of [old, live]) element.removeAttributeNS(namespaceURI, localName);
    }
    for (const attribute of next.attributes) {
      if (old.getAttributeNS(attribute.namespaceURI, attribute.localName) === attribute.value) continue;
      // As a node: parsers take names that setAttribute refuses.
      for (const element of [old, live]) element.setAttributeNode(attribute.cloneNode());
      if (live.localName === "source") live.parentNode?.load?.();
    }
  }

  children(old, next, live) {
    const before = [...old.childNodes];
    const after = [...next.childNodes];
    const partners = match(before, after);
    const kept = new Set(partners.values());
    for (const node of before) {
      if (kept.has(node)) continue;
      node.remove();
      this.live.get(node)?.remove();
    }
    const places = new Map(before.map((node, place) => [node, place]));
    const still = unmoved(after.map((node) => places.get(partners.get(node)) ?? -1));
    let following = null;
    for (let index = after.length - 1; index >= 0; index--) {
      const node = after[index];
      const partner = partners.get(node);
      if (!partner) this.insert(old, live, node, following);
      else {
        if (!still.has(index)) this.move(old, live, partner, following);
        this.morph(partner, node);
      }
      following = partner ?? node;
    }
  }

  insert(old, live, node, following) {
    const copy = document.importNode(node, true);
    this.twin(node, copy);
    old.insertBefore(node, following);
    live.insertBefore(copy, this.before(live, following));
  }

  move(old, live, node, following) {
    old.insertBefore(node, following);
    const twin = this.live.get(node);
    // moveBefore keeps focus, playing media and loaded frames, but refuses what is in no document.
    const how = twin.isConnected && live.isConnected && live.moveBefore ? "moveBefore" : "insertBefore";
    live[how](twin, this.before(live, following));
  }

  before(live, following) {
    const twin = following && this.live.get(following);
    return twin?.parentNode === live ? twin : null; // something else may have taken it away
  }
}

// Which of the nodes *before* goes on as which of those *after*: the equal ones at both ends, then equal ones anywhere,
// then those that have the same ids and names in them, then, between two that are known, those of one kind.
function match(before, after) {
  const partners = new Map();
  let start = 0;
  let [end, stop] = [before.length, after.length];
  const same = (one, two) => one.isEqualNode(two) && partners.set(two, one);
  while (start < Math.min(end, stop) && same(before[start], after[start])) start++;
  while (start < Math.min(end, stop) && same(before[end - 1], after[stop - 1])) [end, stop] = [end - 1, stop - 1];
  const free = new Set(before.slice(start, end));
  const rest = after.slice(start, stop);
  if (!free.size || !rest.length) return partners;
  for (const keys of [contents, marks]) matchBy(keys, free, rest, partners);
  for (const fits of [(old, node) => old.id === node.id, () => true]) matchByPlace(before, after, free, partners, fits);
  return partners;
}

function matchBy(keys, free, rest, partners) {
  const queues = new Map();
  for (const old of free) {
    for (const key of keys(old)) queues.get(key)?.push(old) ?? queues.set(key, [old]);
  }
  for (const node of rest) {
    if (partners.has(node)) continue;
    for (const queue of keys(node).map((key) => queues.get(key) ?? [])) {
      while (queue.length && !free.has(queue[0])) queue.shift();
      const old = queue.find((old) => free.has(old) && alike(old, node));
      if (!old) continue;
      partners.set(node, old);
      free.delete(old);
      break;
    }
  }
}

function matchByPlace(before, after, free, partners, fits) {
  const places = new Map(before.map((node, place) => [node, place]));
  const limits = []; // for each of *after*, the place of the next that is known
  for (let index = after.length - 1, limit = before.length; index >= 0; index--) {
    limits[index] = limit;
    limit = places.get(partners.get(after[index])) ?? limit;
  }
  let place = 0;
  for (const [index, node] of after.entries()) {
    if (!partners.has(node)) {
      let old;
      for (let at = place; at < limits[index] && !old; at++) {
        const one = before[at];
        if (free.has(one) && alike(one, node) && fits(one, node)) old = one;
      }
      if (!old) continue;
      partners.set(node, old);
      free.delete(old);
    }
    place = places.get(partners.get(node)) + 1;
  }
}

function alike(old, node) {
  if (old.nodeName !== node.nodeName || old.namespaceURI !== node.namespaceURI) return false;
  if (old.id && node.id && old.id !== node.id) return false;
  return old.localName !== "input" || old.type === node.type;
}

const contents = (node) => [node.outerHTML ?? node.nodeName + node.data];

function marks(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return [];
  return [node, ...node.querySelectorAll("[id], [name]")].map(markOf).filter(Boolean);
}

function markOf(element) {
  if (element.id) return "#" + CSS.escape(element.id);
  const name = element.getAttribute("name");
  const value = ["radio", "checkbox"].includes(element.type) ? `[value="${CSS.escape(element.value)}"]` : "";
  return name && `${element.localName}[name="${CSS.escape(name)}"]${value}`;
}

// The positions of a longest rising run in *places* (-1 is none): what need not be moved, so that least is.
function unmoved(places) {
  const ends = [];
  const previous = [];
  places.forEach((place, index) => {
    if (place < 0) return;
    const rises = !ends.length || place > places[ends.at(-1)];
    const length = rises ? ends.length : ends.findIndex((end) => places[end] > place);
    previous[index] = ends[length - 1];
    ends[length] = index;
  });
  const still = new Set();
  for (let index = ends.at(-1); index !== undefined; index = previous[index]) still.add(index);
  return still;
}

// What a visitor has done to forms, where the focus is: put back after the nodes under it have changed.
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
