// Morphing beside scripts: what can be changed while scripts of the page go on running.
//
// A script may hold any element, listen to it, have read it, and have changed it. So elements are
// neither made, removed nor moved, and what scripts look for or read (a class, an id, data) is not
// changed. What is: texts, and attributes that only say how an element looks, and only where the
// live document still has what the server had sent, which no script has touched then. If an edit
// takes more than that, nothing is changed here.

const LOOKS = /^(style|title|alt|lang|dir|placeholder|width|height|aria-label)$/;
const DATA = /^(script|template|textarea|option|noscript|iframe)$/; // texts that are no text

class TextMirror {
  // *sent* is the root of the page as it was sent.
  constructor(sent) {
    this.shadow = sent;
    this.live = new Map(); // from nodes of the shadow to their live nodes, where those are certain
    this.pair(sent, document.documentElement);
  }

  pair(shadow, live) {
    this.live.set(shadow, live);
    const [one, two] = [shadow, live].map((node) => [...plain(node).childNodes]);
    const place = placesOf(one, two);
    if (place) one.forEach((node, index) => this.pair(node, two[place(index)]));
  }

  // Makes the live document show *next*, if that is possible. Returns whether it was.
  show(next) {
    const steps = [];
    if (dataIn(this.shadow) !== dataIn(next)) return false;
    if (!this.compare(this.shadow, next, steps)) return false;
    for (const step of steps) step();
    return true;
  }

  // Adds to *steps* what makes *old* into *next*. Returns false if that takes too much.
  compare(old, next, steps) {
    const [one, two] = [old, next].map(plain);
    if (one.isEqualNode(next)) return true;
    if (one.nodeName !== two.nodeName) return false;
    if (!(old instanceof Element)) return this.compareText(old, next, steps);
    const [before, after] = [[...one.childNodes], [...two.childNodes]];
    return (
      this.compareAttributes(old, next, steps) &&
      before.length === after.length &&
      before.every((node, index) => this.compare(node, after[index], steps))
    );
  }

  compareText(old, next, steps) {
    const live = this.live.get(old);
    if (DATA.test(old.parentNode?.localName) || live?.data !== old.data) return false;
    steps.push(() => (old.data = live.data = next.data));
    return live.isConnected;
  }

  compareAttributes(old, next, steps) {
    const elements = [old, this.live.get(old)].map(plain);
    const [one, live, two] = [...elements, plain(next)];
    const names = [...one.getAttributeNames(), ...two.getAttributeNames()];
    const changed = names.filter((name) => one.getAttribute(name) !== two.getAttribute(name));
    const isFree = (name) => live?.getAttribute(name) === one.getAttribute(name);
    if (!changed.every((name) => LOOKS.test(name) && isFree(name))) return false;
    steps.push(() => changed.forEach((name) => elements.forEach((each) => copy(two, each, name))));
    return true;
  }
}

function copy(from, to, name) {
  if (from.hasAttribute(name)) to.setAttribute(name, from.getAttribute(name));
  else to.removeAttribute(name);
}

// The content of templates, which is not among their nodes.
const dataIn = (root) =>
  [...root.querySelectorAll("template")].map(({ innerHTML }) => innerHTML).join();

// Where the nodes *sent* are in *live*: a function of their index. Null if that is not certain,
// because a script has done more than put something in, at one place.
function placesOf(sent, live) {
  const more = live.length - sent.length;
  if (more === 0) return sent.every((node, i) => isKin(node, live[i])) ? (i) => i : null;
  let [start, end] = [0, 0];
  while (start < sent.length && isAlike(sent[start], live[start])) start++;
  while (end < sent.length && isAlike(sent.at(-1 - end), live.at(-1 - end))) end++;
  if (more < 0 || start + end !== sent.length) return null;
  return (index) => (index < start ? index : index + more);
}

const isKin = (one, two) => plain(one).nodeName === plain(two).nodeName;
const isAlike = (one, two) =>
  Boolean(two) && isKin(one, two) && one.data === two.data && tagOf(one) === tagOf(two);
const tagOf = (node) =>
  [...(plain(node).attributes ?? [])].map(({ name, value }) => `${name}="${value}"`).join(" ");
