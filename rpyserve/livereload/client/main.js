// Makes this page show what is saved on the server, for as long as it is open.
//
// The page's tag says what it was made from. A page that may have changed is fetched and looked at
// first: one that would not follow, or is half-written, does not take the place of one that does. A
// page without scripts of its own is morphed. So is one with scripts where that takes no more than
// TextMirror does; else it is loaded again, because what its scripts hold cannot be known.
// Stylesheets and images are swapped. What answered a form is never asked for again, but offered.
// Where nothing concerns the page, nothing is touched. Comes last, after all that it uses.

const tag = document.currentScript;
// It may be below a prefix, behind a proxy. Not by tag.src: a <base> that comes later changes that.
const SITE = new URL("..", new URL(tag.getAttribute("src"), location.href));

const LOADS = "[data-rpyserve-loads]"; // gives way without being compared
const LOAD_GRACE = 2000; // ms after which a page that is still loading may be an endless stream
const MAX_RETRIES = 5; // fetches of the page that fail, before it is loaded instead

let page = readTag(tag);
let cursor = page.rpyserve;
const ASKED = Number(page.asked); // when the server was asked for this load: ms of its time
let mirror = null; // stays null where the page has scripts
let textMirror = null; // the same for a page that has; a promise
let aside = null; // the page, while an error page is shown in its place
const POLICY = page.policy ?? ""; // the browser keeps the policy of the load
const loaded = new Set(); // the paths of all that this page has loaded
const loadedImages = new Set(); // those of them that elements have loaded as images

// --- What a change means for this page

let pending = null;
let busy = false;
let failures = 0;

async function queueChange({ urls = [], all = false, data = false, lost = false }) {
  if (!(urls.length || all || data || lost)) return answer("unchanged");
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
    const isShown = await applyChange(change).catch(reload); // what cannot be morphed is loaded
    answer(isShown ? "shown" : "unchanged");
  }
  busy = false;
}

// The same for every address of a file: /a/index.rpy is /a/, /b.rpy is /b.
const canonical = (path) => path.replace(/\.rpy$/, "").replace(/\/index(\.html)?$/, "/");

// Whether a script may have read what is at *url*: "*" is a file whose name is private.
function isRead(url) {
  return url === "*" || !(url.endsWith(".rpy") || url.endsWith("/") || loaded.has(url));
}

// Returns whether the page shows something that it did not show before.
async function applyChange(change) {
  const paths = new Set(change.urls.map(canonical));
  const isChanged = (path) => path !== null && (change.lost || paths.has(canonical(path)));
  const isSource = change.lost || change.urls.some((url) => page.sources.has(url));
  // Whether what scripts make may be something else now, without an edit of them.
  const mayDiffer = change.all || (change.data && change.urls.some(isRead));
  const isOutdated = (path) => isChanged(path) || (mayDiffer && path !== null && isMade(path));
  const isScript = page.made === "script";
  let isShown = false;
  // 1. The page itself.
  if (page.method === "POST") {
    // Its own form may have written the data.
    if (isSource || (isScript && change.all)) offerReload();
  } else if (isSource || (isScript && mayDiffer)) {
    isShown = await refresh(change);
  }
  // 2. What it has loaded.
  const swapped = [
    ...(await swapStylesheets(isChanged, cursor, mirror)),
    ...(await swapImages(isOutdated, loaded, cursor)),
    ...swapFrames(isChanged),
  ];
  // 3. What cannot be swapped, such as a script.
  const isShownOld = (path) => loadedImages.has(path) && isOutdated(path);
  const others = [...loaded, ...loadedImages].filter(
    (path) => (isAnswered(path, change.urls) || isShownOld(path)) && !swapped.includes(path),
  );
  if (others.length && page.method !== "POST") await reload();
  return isShown || swapped.length > 0;
}

// Whether a script may have made the image at *path*: that has no file's name, or is below the
// page's own script.
function isMade(path) {
  const isBelow = (url) => url.endsWith(".rpy") && path.startsWith(`${canonical(url)}/`);
  return !IMAGE_FILE.test(path) || [...page.sources].some(isBelow);
}

// Whether one of the files at *urls* answers a request for *path*: /api.rpy also /api/items/3.
function isAnswered(path, urls) {
  const isBelow = (url) => url.endsWith(".rpy") && path.startsWith(`${canonical(url)}/`);
  return urls.some((url) => canonical(url) === canonical(path) || isBelow(url));
}

function reload() {
  answer("loading");
  if (!isError(page)) keepState();
  location.reload();
  return sleep(PAGE_TIMEOUT); // nothing else is to happen here meanwhile
}

// Returns whether the page shows something that it did not show before.
async function refresh(change) {
  if ((await isEndless()) || document.querySelector(LOADS)) return reload();
  const next = await fetchPage(cursor);
  if (!next) return retryLater(change);
  failures = 0;
  if (next.mustLoad) return reload();
  if (next.obstacle) return void showNotice(next.obstacle, "Load it", reload);
  hideNotice();
  const cannotMorph = !mirror || mirror.hasShadowRoots();
  if (cannotMorph && next.page.digest && next.page.digest === page.digest) return;
  if (await showBesideScripts(next)) return true;
  if (cannotMorph || !canShow(next)) return reload();
  await showPage(next);
  return true;
}

async function showBesideScripts({ parsed, root, page: next }) {
  const sent = await textMirror;
  const isOfKind = parsed.compatMode === document.compatMode && isError(next) === isError(page);
  if (!sent || !isOfKind || next.policy !== page.policy || !sent.show(root)) return false;
  page = next;
  return true;
}

async function isEndless() {
  if (document.readyState !== "loading") return false;
  const parsed = new Promise((done) => document.addEventListener("DOMContentLoaded", done));
  await Promise.race([parsed, sleep(LOAD_GRACE - performance.now())]);
  return document.readyState === "loading";
}

// Applies *change* once more when the server is there, but not for ever.
function retryLater(change) {
  if (failures++ > MAX_RETRIES) return reload();
  const retry = () => {
    if (isConnected()) queueChange(change);
    else setTimeout(retry, RETRY_DELAY);
  };
  setTimeout(retry, RETRY_DELAY);
}

const isData = ({ type }) => /^(application\/(ld\+)?json|text\/(plain|template))$/i.test(type);
const isExtension = ({ src }) => /^[a-z]+(-[a-z]+)*-extension:/.test(src); // the visitor's
const hasScripts = (root) =>
  [...root.querySelectorAll("script")].some((script) => !isData(script) && !isExtension(script));

// --- Showing the page as it is now

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
  keepState(); // in case the page that comes back can only be loaded
  const { documentElement: root } = document;
  aside = { mirror, root, scrolls: scrolledElements(), formState: new FormState() };
  document.replaceChild(document.createElement("html"), document.documentElement);
  mirror = new Mirror();
}

const INVISIBLE = new CSSStyleSheet();
INVISIBLE.replaceSync("html { opacity: 0 !important }");

async function restorePage(next) {
  const { root, scrolls, formState } = aside;
  takeState();
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
  await sleep(20); // WebKit scrolls to a selection that was set, but later
  scrolls.forEach(scrollBack);
  document.adoptedStyleSheets = document.adoptedStyleSheets.filter(
    (sheet) => sheet !== INVISIBLE,
  );
}

function offerReload() {
  const load = () => location.replace(addressOfPage());
  showNotice("This page answered a form, and may have changed since.", "Reload", load);
}

// Copies the text beside the button of an error page.
async function copyText(button) {
  if (!button.matches?.("[data-rpyserve-copy]")) return;
  const text = button.closest("details").querySelector("pre");
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(text); // this is for pages of this machine and TLS only
  }
}

// --- Beginning

async function mirrorTexts(name) {
  const sent = await fetchSent(name).catch(() => null);
  return sent && new TextMirror(sent);
}

function start() {
  if (!hasScripts(document)) mirror = new Mirror();
  else if (page.sent) textMirror = mirrorTexts(page.sent);
  rememberOpened();
  putBack();
}

const putBack = () => isError(page) || restoreState();

tag.remove();
if (document.readyState === "loading") {
  document.addEventListener("DOMContentLoaded", start);
  setTimeout(putBack, LOAD_GRACE); // a stream without an end is never whole
} else {
  start();
}
new PerformanceObserver((list) => {
  for (const { name, initiatorType } of list.getEntries()) {
    const path = pathOf(name);
    if (initiatorType === "img" && path) loadedImages.add(path);
    if (path && !path.startsWith("/-/") && path !== pathOf(location.href)) loaded.add(path);
  }
}).observe({ type: "resource", buffered: true });
document.addEventListener("visibilitychange", () => document.hidden || membership || join());
document.addEventListener("click", ({ target }) => copyText(target));
addEventListener("pagehide", leave); // a page with a stream or a lock is not kept for "back"
addEventListener("pageshow", ({ persisted }) => persisted && join());
document.addEventListener("freeze", leave);
document.addEventListener("resume", join);
join();
