// Morphing: the live document is made to show what the server sends now.
//
// It is never compared with what the server sends now, but only what the server sent before is ("the shadow"). Each
// difference between the two is made to the shadow and to the live document alike, and nothing else is touched. So what
// the visitor opened, resized or played, and what an extension of the browser put in, stays without a rule of its own.
// Knows nothing of the network, and nothing of why the page has changed. Comes after visitor.js.

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

  // Whether the page has trees that are not in what the server sends as elements.
  hasShadows() {
    return [...this.shadow.querySelectorAll("*")].some((node) => this.live.get(node)?.shadowRoot);
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
  for (const fits of [(old, node) => idOf(old) === idOf(node), () => true]) matchByPlace(before, after, free, partners, fits);
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
  if (idOf(old) && idOf(node) && idOf(old) !== idOf(node)) return false;
  return old.localName !== "input" || old.type === node.type;
}

const contents = (node) => [node.outerHTML ?? node.nodeName + node.data];

function marks(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return [];
  return [node, ...node.querySelectorAll("[id], [name]")].map(markOf).filter(Boolean);
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
