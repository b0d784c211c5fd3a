// What the inspector's pages do by themselves: they follow what happens, until they are paused.
//
// A stream says that there is something new. The page then fetches itself and is morphed, by the
// code that follows edits, so what is open, typed or focused stays. Between two looks, times go on
// and bars run down by what the server has said last. A page without this script is complete: it
// stands, and its forms are sent as forms.
//
// There is one stream a tab, and none while the tab is hidden. Uses Mirror and plain.

const RETRY_DELAY = 2000; // ms until a stream that was refused is asked for again
const ASK_DELAY = 2000; // ms from one look to the next where the browser has no room for a stream
const ROOM_DELAY = 15000; // ms after which there may be room again
const REST = 3; // a page that takes long to make is not asked for all the time
const SAY_DELAY = 10000; // ms between two things that a screen reader is told

const { boot, live } = document.currentScript.dataset;
const isFollowing = live !== undefined; // what an action has answered does not change

// The one place that makes markup of text: what this server has just sent as this page.
const policy = window.trustedTypes?.createPolicy("rpyserve", { createHTML: (text) => text });
const asMarkup = (text) => policy?.createHTML(text) ?? text;

const $ = (selector) => document.querySelector(selector);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// --- Showing the page as it is now

let mirror = null;
let shownAt = performance.now(); // when the server said what is shown
let isShowing = false;
let isOutdated = false;

// Shows what there is, once, however often it is called meanwhile.
async function look() {
  isOutdated = true;
  if (isShowing) return;
  isShowing = true;
  while (isOutdated && !isPaused && !document.hidden) {
    isOutdated = false;
    const began = performance.now();
    await show().catch(() => setState("Not connected"));
    await sleep((performance.now() - began) * REST);
  }
  isShowing = false;
}

async function show() {
  const options = { headers: { Accept: "text/html" }, cache: "no-store" };
  const response = await fetch(location.href.replace(/#.*/s, ""), options);
  const text = await response.text();
  if (isPaused || !/^text\/html\b/.test(response.headers.get("Content-Type"))) return;
  const parsed = new DOMParser().parseFromString(asMarkup(text), "text/html");
  if (parsed.querySelector("script[data-boot]")?.dataset.boot !== boot) return location.reload();
  mirror.show(parsed.documentElement);
  shownAt = performance.now();
  goOn();
}

// --- Times

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

// Two units at most, such as 4 min 12 s: as the server writes it.
function span(seconds) {
  const parts = UNITS.map(([size, unit], index) => {
    const above = index ? UNITS[index - 1][0] : Infinity;
    return [Math.floor((seconds % above) / size), unit];
  });
  const first = parts.findIndex(([number]) => number);
  if (first < 0) return "0 s";
  const shown = parts.slice(first, first + 2).filter(([number]) => number);
  return shown.map((part) => part.join(" ")).join(" ");
}

// Has all times go on.
function goOn() {
  if (isPaused) return;
  const passed = (performance.now() - shownAt) / 1000;
  for (const element of document.querySelectorAll("[data-ago]")) {
    const seconds = Math.floor(Number(element.dataset.ago) + passed);
    write(element, seconds < 1 ? "just now" : `${span(seconds)} ago`);
  }
  for (const element of document.querySelectorAll("[data-left]")) {
    const seconds = Math.max(0, Number(element.dataset.left) - passed);
    if (element.localName === "meter") element.value = seconds;
    else write(element, span(Math.floor(seconds)));
  }
}

function write(element, text) {
  if (element.textContent !== text) element.firstChild.data = text;
}

// --- The stream

let source = null;
let isCrowded = false;
let seen = null; // what the stream said last
let isPaused = false;
let unseen = 0; // how many things are new since the page was paused

function listen() {
  leave();
  if (document.hidden) return;
  setState("Connecting…");
  source = new EventSource("/-/events?inspect=1");
  source.addEventListener("look", ({ data }) => take(JSON.parse(data)));
  source.addEventListener("crowded", () => askNowAndThen());
  source.addEventListener("error", ({ target }) => {
    setState("Not connected, trying again");
    if (target.readyState === EventSource.CLOSED) setTimeout(listen, RETRY_DELAY);
  });
}

function leave() {
  source?.close();
  source = null;
}

function take(told) {
  if (told.boot !== boot) return location.reload(); // the server has been started anew
  const before = seen ?? told;
  seen = told;
  setState("Live");
  say(told.ended - before.ended, told.failed - before.failed);
  if (isPaused) {
    unseen += told.requests - before.requests + told.ended - before.ended;
    return setState();
  }
  look();
}

// A browser has few connections, and other tabs have them all.
async function askNowAndThen() {
  leave();
  const until = performance.now() + ROOM_DELAY;
  while (!source && !document.hidden && performance.now() < until) {
    setState(`Looks every ${ASK_DELAY / 1000} s, as other tabs are open`);
    await sleep(ASK_DELAY);
    if (!isPaused) look();
  }
  if (!source) listen();
}

// --- What is said of it

let state = "";

function setState(words = state) {
  state = words;
  const news = unseen ? `, ${unseen.toLocaleString("en")} new` : "";
  const shown = isPaused ? `Paused${news}` : state;
  if ($("#live span").textContent !== shown) $("#live span").textContent = shown;
}

function pause() {
  isPaused = !isPaused;
  unseen = 0;
  const button = $("#live button");
  button.setAttribute("aria-pressed", isPaused);
  button.textContent = isPaused ? "Go on" : "Pause";
  setState();
  if (!isPaused) look();
}

const toSay = { ended: 0, failed: 0 };
let sayTimer = 0;

// Tells a screen reader of ends and failures, and not all the time.
function say(ended, failed) {
  toSay.ended += ended;
  toSay.failed += failed;
  if (sayTimer || !(toSay.ended || toSay.failed)) return;
  const parts = [counted(toSay.ended, "session", "ended"), counted(toSay.failed, "request", "failed")];
  Object.assign(toSay, { ended: 0, failed: 0 });
  if (!isPaused) $("#said").textContent = parts.filter(Boolean).join(" ");
  sayTimer = setTimeout(() => {
    sayTimer = 0;
    say(0, 0);
  }, SAY_DELAY);
}

const counted = (number, what, did) => number && `${number} ${what}${number > 1 ? "s" : ""} ${did}.`;

// --- Actions: their answer is shown in this page

async function act(event) {
  const form = event.target;
  if (plain(form).method !== "post" || plain(form).dataset.stays === undefined) return;
  event.preventDefault();
  const options = {
    method: "POST",
    body: new URLSearchParams(new FormData(form)),
    headers: { Accept: "application/json" },
  };
  try {
    const response = await fetch(plain(form).getAttribute("action"), options);
    const told = await response.json();
    sayDone(told.done ?? told.detail, told.see);
  } catch {
    sayDone("The server has not answered.");
  }
  if (isFollowing && !isPaused) look();
}

function sayDone(text, see) {
  const url = see === undefined ? location.pathname : `/-/${see}`;
  const parts = [text];
  if (url !== location.pathname) {
    const link = document.createElement("a");
    link.href = url;
    link.textContent = "Go on";
    parts.push(" ", link);
  }
  $("#done").replaceChildren(...parts);
}

// --- Keys: single ones count only while the focus is in a list

const KEYS = {
  j: (row) => go(row, "nextElementSibling"),
  k: (row) => go(row, "previousElementSibling"),
  "/": () => $("[role=search] input")?.focus(),
  p: pause,
  "?": () => ($("#keys").hidden = !$("#keys").hidden),
};

function go(row, where) {
  for (let next = row[where]; next; next = next[where]) {
    const link = next.querySelector("a[href]");
    if (link) return link.focus();
  }
}

function press(event) {
  const { target, key, ctrlKey, metaKey, altKey } = event;
  const row = target.closest("[data-list] tbody tr");
  if (!row || target.matches("input, select, textarea") || ctrlKey || metaKey || altKey) return;
  if (!Object.hasOwn(KEYS, key)) return;
  event.preventDefault();
  KEYS[key](row);
}

// --- Beginning

document.addEventListener("submit", act);
if (isFollowing) {
  mirror = new Mirror();
  $("#live").hidden = false;
  $("#live button").addEventListener("click", pause);
  document.addEventListener("keydown", press);
  document.addEventListener("visibilitychange", listen);
  addEventListener("pagehide", leave);
  addEventListener("pageshow", ({ persisted }) => persisted && listen());
  setInterval(goOn, 1000);
  listen();
}
