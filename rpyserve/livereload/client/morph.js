// Morphing: the live document is made to show what the server sends now.
//
// The live document is never compared with that. What the server sent before (the "shadow", a copy)
// is; each difference between the two is made to the shadow and to the live document alike, and
// nothing else is touched. So what the visitor opened, resized or played, and what an extension of
// the browser put in, stays without a rule of its own.
//
// Must not know the network, or why the page has changed. Uses plain and FormState.

const INERT = document.implementation.createHTMLDocument(""); // images in it are not loaded

class Mirror {
  constructor() {
    this.live = new WeakMap(); // from each node of the shadow to its live node
    this.shadow = INERT.importNode(document.documentElement, true);
    this.pair(this.shadow, document.documentElement);
  }

  // Makes the live document show *next*, another document's root, which is used up.
  show(next) {
    const formState = new FormState();
    this.morph(this.shadow, next);
    formState.restore();
  }

  // Whether the page has shadow roots, which are not in what the server sends as elements.
  hasShadowRoots() {
    return [...this.shadow.querySelectorAll("*")].some(
      (node) => plain(this.live.get(node))?.shadowRoot,
    );
  }

  // From now on *live* stands where the live node *old* stood.
  replace(old, live) {
    for (const node of this.shadow.querySelectorAll(old.localName)) {
      if (this.live.get(node) === old) this.live.set(node, live);
    }
  }

  // Takes note that two equal trees belong together, node by node.
  pair(shadow, live) {
    const [one, two] = [shadow, live].map((root) => document.createTreeWalker(root));
    do this.live.set(one.currentNode, two.currentNode);
    while (one.nextNode() && two.nextNode());
  }

  morph(old, next) {
    if (plain(old).isEqualNode(next)) return;
    const live = this.live.get(old);
    if (!(old instanceof Element)) {
      live.data = old.data = next.data;
      return;
    }
    const elements = [old, next, live].map(plain);
    this.morphAttributes(...elements);
    this.morphChildren(...elements);
  }

  // From here on *old*, *next* and *live* are plain.

  morphAttributes(old, next, live) {
    for (const { namespaceURI, localName } of [...old.attributes]) {
      if (next.hasAttributeNS(namespaceURI, localName)) continue;
      for (const element of [old, live]) element.removeAttributeNS(namespaceURI, localName);
    }
    for (const attribute of next.attributes) {
      const { namespaceURI, localName, value } = attribute;
      if (old.getAttributeNS(namespaceURI, localName) === value) continue;
      // As a node: parsers take names that setAttribute refuses.
      for (const element of [old, live]) element.setAttributeNode(attribute.cloneNode());
      if (live.localName === "source") live.parentNode?.load?.();
    }
  }

  morphChildren(old, next, live) {
    const before = [...old.childNodes];
    const after = [...next.childNodes];
    const partners = match(before, after);
    // 1. Remove what has no partner.
    const kept = new Set(partners.values());
    for (const node of before) {
      if (kept.has(node)) continue;
      plain(node).remove();
      plain(this.live.get(node))?.remove();
    }
    // 2. From last to first: insert what is new, move as little as possible, morph the rest.
    const places = new Map(before.map((node, place) => [node, place]));
    const staying = longestRise(after.map((node) => places.get(partners.get(node)) ?? -1));
    let sibling = null;
    for (let index = after.length - 1; index >= 0; index--) {
      const node = after[index];
      const partner = partners.get(node);
      if (partner) {
        if (!staying.has(index)) this.move(old, live, partner, sibling);
        this.morph(partner, node);
      } else {
        this.insert(old, live, node, sibling);
      }
      sibling = partner ?? node;
    }
  }

  insert(old, live, node, sibling) {
    const copy = document.importNode(node, true);
    this.pair(node, copy);
    old.insertBefore(node, sibling);
    live.insertBefore(copy, this.liveSibling(live, sibling));
  }

  move(old, live, node, sibling) {
    old.insertBefore(node, sibling);
    const moved = this.live.get(node);
    // moveBefore keeps focus, playing media and loaded frames, but refuses what is in no document.
    const canKeepState = plain(moved).isConnected && live.isConnected && live.moveBefore;
    live[canKeepState ? "moveBefore" : "insertBefore"](moved, this.liveSibling(live, sibling));
  }

  liveSibling(live, sibling) {
    const found = sibling && this.live.get(sibling);
    // Something else may have taken it away.
    return found && live.isSameNode(plain(found).parentNode) ? found : null;
  }
}

// Which of the nodes *before* goes on as which of those *after*: a map from the latter to those.
function match(before, after) {
  const partners = new Map();
  // 1. The equal ones at both ends.
  let start = 0;
  let [end, stop] = [before.length, after.length];
  const pairIfEqual = (old, node) => plain(old).isEqualNode(node) && partners.set(node, old);
  while (start < Math.min(end, stop) && pairIfEqual(before[start], after[start])) start++;
  while (start < Math.min(end, stop) && pairIfEqual(before[end - 1], after[stop - 1])) {
    end--;
    stop--;
  }
  const free = new Set(before.slice(start, end));
  const rest = after.slice(start, stop);
  if (!free.size || !rest.length) return partners;
  // 2. Equal ones anywhere. 3. Those with the same ids and names in them.
  matchByKeys(contentOf, free, rest, partners);
  matchByKeys(selectorsIn, free, rest, partners);
  // 4. Between two that have partners: those of one kind with the same id, then any of one kind.
  matchByPlace(before, after, free, partners, (old, node) => idOf(old) === idOf(node));
  matchByPlace(before, after, free, partners, () => true);
  return partners;
}

function matchByKeys(keysOf, free, rest, partners) {
  const queues = new Map();
  for (const old of free) {
    for (const key of keysOf(old)) queues.get(key)?.push(old) ?? queues.set(key, [old]);
  }
  for (const node of rest) {
    if (partners.has(node)) continue;
    for (const queue of keysOf(node).map((key) => queues.get(key) ?? [])) {
      while (queue.length && !free.has(queue[0])) queue.shift();
      const old = queue.find((candidate) => free.has(candidate) && isSameKind(candidate, node));
      if (!old) continue;
      partners.set(node, old);
      free.delete(old);
      break;
    }
  }
}

function matchByPlace(before, after, free, partners, accepts) {
  const places = new Map(before.map((node, place) => [node, place]));
  const limits = []; // for each of *after*, the place of the next one that has a partner
  for (let index = after.length - 1, limit = before.length; index >= 0; index--) {
    limits[index] = limit;
    limit = places.get(partners.get(after[index])) ?? limit;
  }
  const fits = (old, node) => free.has(old) && isSameKind(old, node) && accepts(old, node);
  let place = 0;
  for (const [index, node] of after.entries()) {
    if (!partners.has(node)) {
      let at = place;
      while (at < limits[index] && !fits(before[at], node)) at++;
      if (at >= limits[index]) continue;
      partners.set(node, before[at]);
      free.delete(before[at]);
    }
    place = places.get(partners.get(node)) + 1;
  }
}

function isSameKind(old, node) {
  const [one, two] = [old, node].map(plain);
  if (one.nodeName !== two.nodeName || one.namespaceURI !== two.namespaceURI) return false;
  if (idOf(old) && idOf(node) && idOf(old) !== idOf(node)) return false;
  return one.localName !== "input" || old.type === node.type;
}

const contentOf = (node) => [plain(node).outerHTML ?? node.nodeName + node.data];

function selectorsIn(node) {
  if (!(node instanceof Element)) return [];
  return [node, ...plain(node).querySelectorAll("[id], [name]")].map(selectorFor).filter(Boolean);
}

// The positions of a longest rising subsequence of *places* (-1 is none): what need not be moved.
function longestRise(places) {
  const ends = []; // for each length, the position at which a rising run of that length ends lowest
  const previous = [];
  places.forEach((place, index) => {
    if (place < 0) return;
    const rises = !ends.length || place > places[ends.at(-1)];
    const length = rises ? ends.length : ends.findIndex((end) => places[end] > place);
    previous[index] = ends[length - 1];
    ends[length] = index;
  });
  const found = new Set();
  for (let index = ends.at(-1); index !== undefined; index = previous[index]) found.add(index);
  return found;
}
