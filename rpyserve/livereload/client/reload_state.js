// What the visitor did in a page, kept while the browser loads it again, and put back after that.
//
// It is kept for one tab and one address (sessionStorage), and taken out as soon as the page is
// there. An error page neither keeps nor takes anything, so that what was typed waits for the page
// to come back, and what belongs to fields that are not in the page is kept for the next time.
// Passwords are never kept. Uses plain, selectorFor, FormState and kindOf.

const KEPT = `rpyserve:${location.pathname}${location.search}`;
const KEPT_FOR = 3600e3; // ms after which what nobody took is stale
const RESTORE_TIME = 3000; // ms that scripts have to make the fields that were there
const FIELDS =
  "input:not([type=password i], [autocomplete*=password i]), textarea, select, [contenteditable]";

// How an element is found again: as the n-th of so many that a selector finds.
function placeOf(element) {
  const selector = selectorFor(element) || CSS.escape(plain(element).localName);
  const found = [...document.querySelectorAll(selector)];
  return { selector, index: found.indexOf(element), count: found.length };
}

function elementAt({ selector, index, count }) {
  const found = document.querySelectorAll(selector);
  return found.length === count ? found[index] : null;
}

// --- Keeping

const opened = new WeakSet(); // the details that were open at first

function rememberOpened() {
  for (const details of document.querySelectorAll("details[open]")) opened.add(details);
}

function keepState() {
  const state = {
    time: Date.now(),
    fields: [...typedFields(), ...missing.fields],
    details: toggledDetails(),
    scrolls: scrolledElements().map(({ element, ...to }) => ({ place: placeOf(element), ...to })),
    focus: focusNow(),
  };
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(state));
  } catch {
    // Full, or not for this page.
  }
}

function typedFields() {
  return [...document.querySelectorAll(FIELDS)]
    .filter((field) => FormState.typed.has(field) && kindOf(field).isTouched(field))
    .map((field) => {
      return { place: placeOf(field), type: field.type, value: kindOf(field).read(field) };
    });
}

function toggledDetails() {
  return [...document.querySelectorAll("details")]
    .filter((details) => details.open !== opened.has(details))
    .map((details) => ({ place: placeOf(details), open: details.open }));
}

// The page itself, too: the browser keeps its place, but not while an error page is there.
function scrolledElements() {
  return [...document.querySelectorAll("*")]
    .map((element) => {
      const { scrollLeft: left, scrollTop: top } = plain(element);
      return { element, left, top };
    })
    .filter(({ left, top }) => left || top);
}

function focusNow() {
  const active = document.activeElement;
  if (!active || active === document.body) return [];
  return [{ place: placeOf(active), selection: selectionIn(active) }];
}

// --- Putting back

function takeState() {
  try {
    const state = JSON.parse(sessionStorage.getItem(KEPT));
    sessionStorage.removeItem(KEPT);
    return state && Date.now() - state.time < KEPT_FOR ? state : null;
  } catch {
    return null;
  }
}

const missing = { fields: [], details: [], focus: [] }; // what is not in the page

function restoreState() {
  const state = takeState();
  if (!state) return;
  Object.assign(missing, { fields: state.fields, details: state.details, focus: state.focus });
  restoreMissing();
  const restoreScrolls = () => {
    for (const { place, ...to } of state.scrolls) scrollBack({ element: elementAt(place), ...to });
  };
  restoreScrolls();
  // WebKit goes to its own place only after the event.
  const restoreTwice = () => {
    restoreScrolls();
    setTimeout(restoreScrolls);
  };
  addEventListener("load", restoreTwice, { once: true });
  // Scripts may make the rest.
  const observer = new MutationObserver(restoreMissing);
  observer.observe(document.documentElement, { childList: true, subtree: true });
  setTimeout(() => observer.disconnect(), RESTORE_TIME);
}

function restoreMissing() {
  missing.fields = missing.fields.filter((field) => !restoreField(field));
  missing.details = missing.details.filter((details) => !restoreDetails(details));
  missing.focus = missing.focus.filter((focus) => !restoreFocus(focus));
}

// Each of these returns whether the element is there.

function restoreField({ place, type, value }) {
  const field = elementAt(place);
  if (!field || field.type !== type) return false;
  if (FormState.typed.has(field)) return true; // typed since
  const kind = kindOf(field);
  kind.write(field, value);
  FormState.typed.add(field);
  // For scripts that keep in step with the field. Not "change": that may send a form.
  const isText = kind === textField || kind === editable;
  if (isText) field.dispatchEvent(new Event("input", { bubbles: true }));
  return true;
}

function restoreDetails({ place, open }) {
  const details = elementAt(place);
  if (details) details.open = open;
  return Boolean(details);
}

function restoreFocus({ place, selection }) {
  const element = elementAt(place);
  if (!element) return false;
  plain(element).focus({ preventScroll: true });
  if (selection && selectionIn(element)) element.setSelectionRange(...selection);
  return true;
}

function scrollBack({ element, left, top }) {
  if (element) plain(element).scrollTo({ left, top, behavior: "instant" });
}
