// Makes this page follow what is saved on the server, as long as it is open. Its tag says what the page was made from.
//
// A page without scripts of its own is fetched again and morphed; one with scripts is loaded again, because what its
// scripts hold cannot be known. Stylesheets and images are swapped. What answered a form is never asked for again, but
// offered. Where nothing concerns the page, nothing is touched. Comes last, after all that it uses.

const tag = document.currentScript;
const SITE = new URL("..", tag.src); // it may be below a prefix, behind a proxy

const RETRY = 300; // ms until the server is asked again: it may be starting
const PATIENCE = 700; // ms without the server before the page says so
const SLOW = 10000; // ms after which a page that does not come is given up

const describe = ({ dataset }) => ({ ...dataset, sources: new Set(dataset.sources.split(" ").map(decoded)) });

let page = describe(tag);
let mark = page.rpyserve;
let mirror = null; // stays so where the page has scripts
let aside = null; // the page, while an error page is shown in its place
const POLICY = page.policy ?? ""; // the browser keeps that of the load
const loaded = new Set(); // the paths of all that this page has loaded

// --- What a change means for this page

let waiting = null;
let busy = false;
let failures = 0;

async function note({ urls = [], all = false, data = false, lost = false }) {
  if (!(urls.length || all || data || lost)) return;
  const more = waiting ?? { urls: [] };
  urls = [...more.urls, ...urls.map(decoded)];
  waiting = { urls, all: more.all || all, data: more.data || data, lost: more.lost || lost };
  if (busy) return; // what comes meanwhile is dealt with afterwards, as one
  busy = true;
  while (waiting) {
    const change = waiting;
    waiting = null;
    await deal(change).catch(reload); // what cannot be morphed can still be loaded
  }
  busy = false;
}

// The same for every address of a file: /a/index.rpy is /a/, /b.rpy is /b.
const plain = (path) => path.replace(/\.rpy$/, "").replace(/\/index(\.html)?$/, "/");

// Whether what is at *url* may have been read by a script: "*" is a file whose name is private.
const isRead = (url) => url === "*" || !(url.endsWith(".rpy") || url.endsWith("/") || loaded.has(url));

async function deal(change) {
  const own = change.lost || change.urls.some((url) => page.sources.has(url));
  const perhaps = page.made === "script" && (change.all || (change.data && change.urls.some(isRead)));
  const paths = new Set(change.urls.map(plain));
  const has = (path) => path !== null && (change.lost || paths.has(plain(path)));
  if (page.method === "POST") offer(own || (perhaps && change.all)); // its own form may have written the data
  else if (own || perhaps) await renew(own, change);
  const swapped = [await swapSheets(has, mirror), await swapImages(has, loaded, mark), swapFrames(has)].flat();
  const others = [...loaded].filter((path) => paths.has(plain(path)) && !swapped.includes(path));
  if (others.length && page.method !== "POST") await reload();
}

function reload() {
  location.reload();
  return sleep(SLOW); // nothing else is to happen here meanwhile
}

async function renew(own, change) {
  if (document.readyState === "loading") return reload(); // it may be a stream without an end
  const programs = !mirror || mirror.hasShadows();
  if (programs && own) return reload(); // without a fetch before, which would be one more visit
  const next = await fetchPage();
  if (!next) return again(change);
  failures = 0;
  if (programs && next.page?.digest && next.page.digest === page.digest) return;
  if (programs || !next.page || !fits(next)) return reload();
  await show(next);
}

// Once more when the server is there, but not for ever.
function again(change) {
  if (failures++ > 5) return reload();
  const retry = () => (stream?.readyState === EventSource.OPEN ? note(change) : setTimeout(retry, RETRY));
  setTimeout(retry, RETRY);
}

const isData = ({ type }) => /^(application\/(ld\+)?json|text\/(plain|template))$/i.test(type);
const isForeign = ({ src }) => /^[a-z]+(-[a-z]+)*-extension:/.test(src); // the visitor's, not the page's
const isProgram = (script) => !isData(script) && !isForeign(script);
const hasPrograms = (root) => [...root.querySelectorAll("script")].some(isProgram);

// --- Showing the page as it is now

// Nothing if the server has gone away; a page without a tag, such as a redirect, can only be loaded.
async function fetchPage() {
  const headers = { Accept: "text/html,application/xhtml+xml,*/*;q=0.8", "Rpyserve-Follow": mark };
  const address = location.href.replace(/#.*/s, "");
  let text;
  try {
    const answer = await fetch(address, { headers, cache: "no-store", signal: AbortSignal.timeout(SLOW) });
    const isPage = !answer.redirected && /^text\/html\b/i.test(answer.headers.get("Content-Type") ?? "");
    text = isPage && (await answer.text());
  } catch (error) {
    return error.name === "TimeoutError" ? {} : null;
  }
  return text === false ? {} : parse(text);
}

function parse(text) {
  const parsed = new DOMParser().parseFromString(text, "text/html");
  const found = parsed.querySelector("script[data-rpyserve]");
  found?.remove();
  // Where scripts run, as in this page but not in that parser, what is in noscript is text.
  for (const element of parsed.querySelectorAll("noscript")) element.textContent = element.innerHTML;
  return { parsed, root: parsed.documentElement, page: found && describe(found) };
}

const isError = ({ status }) => status >= 400;
const policiesIn = (root) =>
  [...root.querySelectorAll("meta[http-equiv='content-security-policy' i]")].map((meta) => meta.content).join();

// Whether this document, whose policy and mode of layout are for good, can show *next*.
function fits({ parsed, root, page: next }) {
  if (hasPrograms(root) || root.querySelector("frameset, template[shadowrootmode]")) return false;
  const policies = policiesIn((aside?.mirror ?? mirror).shadow);
  if (isError(next) && !POLICY && !policies) return true;
  return (next.policy ?? "") === POLICY && policiesIn(root) === policies && parsed.compatMode === document.compatMode;
}

async function show(next) {
  const back = isError(next.page) ? null : aside;
  const early = back ? [] : await preload(next.root);
  if (isError(next.page) && !isError(page)) setAside();
  if (back) putBack();
  page = next.page;
  mirror.show(next.root);
  const comes = (sheet) => (back && !sheet.sheet) || early.some((other) => other.href === sheet.href);
  await Promise.all(sheets().filter((sheet) => !early.includes(sheet) && comes(sheet)).map(settled));
  if (back) comeBack(back);
  for (const sheet of early) sheet.remove();
}

const VEIL = new CSSStyleSheet();
VEIL.replaceSync("html { opacity: 0 !important }");

// An error page takes the whole document's place, so that what was typed into the page is there when it comes back.
function setAside() {
  unsay();
  const scrolled = [...document.querySelectorAll("*")].filter((element) => element.scrollTop || element.scrollLeft);
  const scrolls = scrolled.map((element) => [element, element.scrollLeft, element.scrollTop]);
  aside = { mirror, root: document.documentElement, scrolls, visitor: new Visitor() };
  document.replaceChild(document.createElement("html"), document.documentElement);
  mirror = new Mirror();
}

function putBack() {
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, VEIL]; // its stylesheets are loaded once more
  document.replaceChild(aside.root, document.documentElement);
  mirror = aside.mirror;
  aside = null;
}

function comeBack({ scrolls, visitor }) {
  visitor.focus();
  for (const [element, left, top] of scrolls) element.scrollTo({ left, top, behavior: "instant" });
  document.adoptedStyleSheets = document.adoptedStyleSheets.filter((sheet) => sheet !== VEIL);
}

function offer(changed) {
  if (!changed) return;
  const load = () => location.replace(location.href.replace(/#.*/s, ""));
  say("This page answered a form, and may have changed since.", "Load it afresh", load);
}

// --- The stream of changes

let stream = null;
let retry = 0;
let away = 0;

function connect() {
  disconnect();
  stream = new EventSource(new URL("events?since=" + encodeURIComponent(mark), tag.src));
  const hear = (name, act) => stream.addEventListener(name, act);
  for (const name of ["hello", "change"]) {
    hear(name, (event) => {
      mark = event.lastEventId;
      if (away) arrive();
      note(JSON.parse(event.data));
    });
  }
  hear("crowded", () => document.hidden && disconnect()); // browsers have few connections to one server
  hear("error", lose);
}

function disconnect() {
  clearTimeout(retry);
  stream?.close();
  stream = null;
}

async function lose() {
  const refused = stream.readyState === EventSource.CLOSED; // by an answer, or by nobody being there
  const url = stream.url;
  disconnect();
  away ||= setTimeout(say, PATIENCE, "The server is away. This page comes back by itself.");
  const answer = refused && (await fetch(url, { method: "HEAD" }).catch(() => null));
  if ([403, 404].includes(answer?.status)) return arrive(); // it is there, but does not follow any more
  if (!document.hidden && !stream) retry = setTimeout(connect, RETRY);
}

function arrive() {
  clearTimeout(away);
  away = 0;
  unsay();
}

// --- Beginning

function begin() {
  if (!hasPrograms(document)) mirror = new Mirror();
}

tag.remove();
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
else begin();
new PerformanceObserver((list) => {
  for (const { name } of list.getEntries()) {
    const path = pathOf(name);
    if (path && !path.startsWith("/-/") && path !== pathOf(location.href)) loaded.add(path);
  }
}).observe({ type: "resource", buffered: true });
document.addEventListener("visibilitychange", () => document.hidden || stream || connect());
addEventListener("pagehide", disconnect); // a page with a stream is not kept for "back"
addEventListener("pageshow", ({ persisted }) => persisted && connect());
connect();
