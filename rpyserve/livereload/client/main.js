// Makes this page show what is saved on the server, for as long as it is open.
//
// The page's tag says what it was made from. A page without scripts of its own is fetched again and
// morphed; one with scripts is loaded again, because what its scripts hold cannot be known.
// Stylesheets and images are swapped. What answered a form is never asked for again, but offered.
// Where nothing concerns the page, nothing is touched. Comes last, after all that it uses.

const tag = document.currentScript;
const SITE = new URL("..", tag.src); // it may be below a prefix, behind a proxy

const RETRY_DELAY = 300; // ms until the server is asked again: it may be starting
const NOTICE_DELAY = 700; // ms without the server before the page says so
const LOAD_TIMEOUT = 10000; // ms after which a page that does not come is given up
const MAX_RETRIES = 5; // fetches of the page that fail, before it is loaded instead

const readTag = ({ dataset }) => ({
  ...dataset,
  sources: new Set(dataset.sources.split(" ").map(decode)),
});

let page = readTag(tag);
let cursor = page.rpyserve;
let mirror = null; // stays null where the page has scripts
let aside = null; // the page, while an error page is shown in its place
const POLICY = page.policy ?? ""; // the browser keeps the policy of the load
const loaded = new Set(); // the paths of all that this page has loaded

// --- What a change means for this page

let pending = null;
let busy = false;
let failures = 0;

async function queueChange({ urls = [], all = false, data = false, lost = false }) {
  if (!(urls.length || all || data || lost)) return;
  const before = pending ?? { urls: [] };
  pending = {
    urls: [...before.urls, ...urls.map(decode)],
    all: before.all || all,
    data: before.data || data,
    lost: before.lost || lost,
  };
  if (busy) return; // what comes meanwhile is applied afterwards, as one change
  busy = true;
  while (pending) {
    const change = pending;
    pending = null;
    await applyChange(change).catch(reload); // what cannot be morphed can still be loaded
  }
  busy = false;
}

// The same for every address of a file: /a/index.rpy is /a/, /b.rpy is /b.
const canonical = (path) => path.replace(/\.rpy$/, "").replace(/\/index(\.html)?$/, "/");

// Whether a script may have read what is at *url*: "*" is a file whose name is private.
function isRead(url) {
  return url === "*" || !(url.endsWith(".rpy") || url.endsWith("/") || loaded.has(url));
}

async function applyChange(change) {
  const paths = new Set(change.urls.map(canonical));
  const isChanged = (path) => path !== null && (change.lost || paths.has(canonical(path)));
  const isSource = change.lost || change.urls.some((url) => page.sources.has(url));
  const isScript = page.made === "script";
  const mayDiffer = isScript && (change.all || (change.data && change.urls.some(isRead)));
  // 1. The page itself.
  if (page.method === "POST") {
    // Its own form may have written the data.
    if (isSource || (mayDiffer && change.all)) offerReload();
  } else if (isSource || mayDiffer) {
    await refresh(isSource, change);
  }
  // 2. What it has loaded.
  const swapped = [
    ...(await swapStylesheets(isChanged, cursor, mirror)),
    ...(await swapImages(isChanged, loaded, cursor)),
    ...swapFrames(isChanged),
  ];
  // 3. What cannot be swapped, such as a script.
  const others = [...loaded].filter(
    (path) => paths.has(canonical(path)) && !swapped.includes(path),
  );
  if (others.length && page.method !== "POST") await reload();
}

function reload() {
  location.reload();
  return sleep(LOAD_TIMEOUT); // nothing else is to happen here meanwhile
}

async function refresh(isSource, change) {
  if (document.readyState === "loading") return reload(); // it may be a stream without an end
  const cannotMorph = !mirror || mirror.hasShadowRoots();
  if (cannotMorph && isSource) return reload(); // without a fetch before: that is one visit more
  const next = await fetchPage();
  if (!next) return retryLater(change);
  failures = 0;
  if (cannotMorph && next.page?.digest && next.page.digest === page.digest) return;
  if (cannotMorph || !next.page || !canShow(next)) return reload();
  await showPage(next);
}

// Applies *change* once more when the server is there, but not for ever.
function retryLater(change) {
  if (failures++ > MAX_RETRIES) return reload();
  const retry = () => {
    if (stream?.readyState === EventSource.OPEN) queueChange(change);
    else setTimeout(retry, RETRY_DELAY);
  };
  setTimeout(retry, RETRY_DELAY);
}

const isData = ({ type }) => /^(application\/(ld\+)?json|text\/(plain|template))$/i.test(type);
const isExtension = ({ src }) => /^[a-z]+(-[a-z]+)*-extension:/.test(src); // the visitor's
const hasScripts = (root) =>
  [...root.querySelectorAll("script")].some((script) => !isData(script) && !isExtension(script));

// --- Showing the page as it is now

// Returns null if the server has gone away. A page without a tag, such as a redirect, can only be
// loaded: what is returned for it has no *page*.
async function fetchPage() {
  const options = {
    headers: { Accept: "text/html,application/xhtml+xml,*/*;q=0.8", "Rpyserve-Follow": cursor },
    cache: "no-store",
    signal: AbortSignal.timeout(LOAD_TIMEOUT),
  };
  let text;
  try {
    const response = await fetch(location.href.replace(/#.*/s, ""), options);
    const isPage = /^text\/html\b/i.test(response.headers.get("Content-Type") ?? "");
    if (response.redirected || !isPage) return {};
    text = await response.text();
  } catch (error) {
    return error.name === "TimeoutError" ? {} : null;
  }
  return parsePage(text);
}

function parsePage(text) {
  const parsed = plain(new DOMParser().parseFromString(text, "text/html"));
  const found = parsed.querySelector("script[data-rpyserve]");
  found?.remove();
  // Where scripts run, as in this page but not in that parser, the content of noscript is text.
  for (const element of parsed.querySelectorAll("noscript")) {
    element.textContent = element.innerHTML;
  }
  return { parsed, root: parsed.documentElement, page: found && readTag(found) };
}

const isError = ({ status }) => status >= 400;

function policiesIn(root) {
  const metas = root.querySelectorAll("meta[http-equiv='content-security-policy' i]");
  return [...metas].map((meta) => meta.content).join();
}

// Whether this document, whose policy and layout mode are for good, can show *next*.
function canShow({ parsed, root, page: next }) {
  if (hasScripts(root) || root.querySelector("frameset, template[shadowrootmode]")) return false;
  const policies = policiesIn((aside?.mirror ?? mirror).shadow);
  if (isError(next) && !POLICY && !policies) return true;
  const hasSamePolicy = (next.policy ?? "") === POLICY && policiesIn(root) === policies;
  return hasSamePolicy && parsed.compatMode === document.compatMode;
}

async function showPage(next) {
  if (aside && !isError(next.page)) return restorePage(next);
  const preloaded = await preloadStylesheets(next.root);
  if (isError(next.page) && !isError(page)) setPageAside();
  page = next.page;
  mirror.show(next.root);
  const isComing = (sheet) =>
    !preloaded.includes(sheet) && preloaded.some((other) => other.href === sheet.href);
  await Promise.all(sheets().filter(isComing).map(waitLoaded));
  for (const sheet of preloaded) sheet.remove();
}

// An error page takes the whole document's place, so that what was typed into the page is there
// when it comes back.
function setPageAside() {
  hideNotice();
  const scrolls = [...document.querySelectorAll("*")]
    .map(plain)
    .filter((element) => element.scrollTop || element.scrollLeft)
    .map((element) => [element, element.scrollLeft, element.scrollTop]);
  aside = { mirror, root: document.documentElement, scrolls, formState: new FormState() };
  document.replaceChild(document.createElement("html"), document.documentElement);
  mirror = new Mirror();
}

const INVISIBLE = new CSSStyleSheet();
INVISIBLE.replaceSync("html { opacity: 0 !important }");

async function restorePage(next) {
  const { root, scrolls, formState } = aside;
  // 1. Put it back, unseen: its stylesheets are loaded once more.
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, INVISIBLE];
  document.replaceChild(root, document.documentElement);
  mirror = aside.mirror;
  aside = null;
  // 2. Make it show what the server sends now.
  page = next.page;
  mirror.show(next.root);
  await Promise.all(sheets().filter((sheet) => !sheet.sheet).map(waitLoaded));
  // 3. Put back what depends on the layout, and let it be seen.
  formState.restoreFocus();
  for (const [element, left, top] of scrolls) {
    element.scrollTo({ left, top, behavior: "instant" });
  }
  document.adoptedStyleSheets = document.adoptedStyleSheets.filter(
    (sheet) => sheet !== INVISIBLE,
  );
}

function offerReload() {
  const load = () => location.replace(location.href.replace(/#.*/s, ""));
  showNotice("This page answered a form, and may have changed since.", "Reload", load);
}

// --- The stream of changes

let stream = null;
let retryTimer = 0;
let noticeTimer = 0; // 0 while there is a connection

function connect() {
  disconnect();
  const path = location.pathname.slice(SITE.pathname.length - 1);
  const fields = new URLSearchParams({ since: cursor, page: path });
  const address = new URL(`events?${fields}`, tag.src);
  stream = new EventSource(address);
  for (const name of ["hello", "change"]) stream.addEventListener(name, onChange);
  // Browsers have few connections to one server.
  stream.addEventListener("crowded", () => document.hidden && disconnect());
  stream.addEventListener("error", onConnectionLost);
}

function disconnect() {
  clearTimeout(retryTimer);
  stream?.close();
  stream = null;
}

function onChange(event) {
  cursor = event.lastEventId;
  if (noticeTimer) endNotice();
  queueChange(JSON.parse(event.data));
}

async function onConnectionLost() {
  const refused = stream.readyState === EventSource.CLOSED; // by a response, or by nobody there
  const url = stream.url;
  disconnect();
  noticeTimer ||= setTimeout(showNotice, NOTICE_DELAY, "Connection lost, reconnecting…");
  const response = refused && (await fetch(url, { method: "HEAD" }).catch(() => null));
  // The server is there, but without live reload, or not for this visitor.
  if ([401, 403, 404].includes(response?.status)) return endNotice();
  if (!document.hidden && !stream) retryTimer = setTimeout(connect, RETRY_DELAY);
}

function endNotice() {
  clearTimeout(noticeTimer);
  noticeTimer = 0;
  hideNotice();
}

// --- Beginning

function startMirror() {
  if (!hasScripts(document)) mirror = new Mirror();
}

tag.remove();
if (document.readyState === "loading") {
  document.addEventListener("DOMContentLoaded", startMirror);
} else {
  startMirror();
}
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
