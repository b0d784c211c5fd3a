// Tells the server of the errors of this page's scripts, for the console where its author looks.
//
// A script of its own, which is small and is waited for: the errors that a page makes while it is
// being read come before anything that is loaded beside it. Needs nothing of the other files.

(() => {
"use strict";

const tag = document.currentScript;
const SITE = new URL("..", new URL(tag.getAttribute("src"), location.href));
const MOST = 50; // reports of one load of a page; a loop must not become a flood
const LONGEST = 1000; // characters of a text
// Browsers say so where an observer has changed the layout that it observes. It harms nothing.
const HARMLESS = /^ResizeObserver loop/;
const PLACE = /(https?:\/\/[^\s()]+?):(\d+)(?::\d+)?\)?$/m;

let left = MOST;

function report(kind, text, url = "", line = 0) {
  if (left-- <= 0) return;
  const page = location.pathname.slice(SITE.pathname.length - 1);
  const fields = { kind, text: text.slice(0, LONGEST), url: pathOf(url), line, page };
  const body = new URLSearchParams(fields);
  fetch(new URL("-/browser", SITE), { method: "POST", body, keepalive: true }).catch(() => {});
}

// The path of *url* on this server; empty for another one's, as an extension's.
function pathOf(url) {
  return url.startsWith(SITE.href) ? `/${url.slice(SITE.href.length)}` : "";
}

function textOf(value) {
  try {
    if (value instanceof Error) return `${value.name}: ${value.message}`;
    if (typeof value !== "object" || value === null) return String(value);
    return JSON.stringify(value) ?? String(value);
  } catch {
    // It contains itself, or has a toString() that fails.
    return Object.prototype.toString.call(value);
  }
}

addEventListener("error", ({ message, filename, lineno, error }) => {
  const isKnown = filename && pathOf(filename);
  if (!isKnown || HARMLESS.test(message)) return;
  report("error", error instanceof Error ? textOf(error) : String(message), filename, lineno);
});

addEventListener("unhandledrejection", ({ reason }) => {
  const [, url, line] = PLACE.exec(reason?.stack ?? "") ?? [];
  report("rejection", textOf(reason), url, line);
});

if (tag.dataset.console !== undefined) {
  for (const kind of ["debug", "log", "info", "warn", "error"]) {
    const write = console[kind];
    console[kind] = (...values) => {
      report(`console.${kind}`, values.map(textOf).join(" "));
      write.apply(console, values);
    };
  }
}

tag.remove();
})();
