// Swapping what a page has loaded (stylesheets, images, frames) for what the server has now.
//
// Everything here takes *isChanged*, which says of a file's path whether that is to be swapped, and
// returns the paths that it dealt with. The attributes that an author wrote are never changed.
// Needs SITE, the address of the site's root.

const SHEET_TIMEOUT = 2000; // ms after which nobody waits for a stylesheet any more

const sleep = (time) => new Promise((done) => setTimeout(done, time));

// --- Addresses

const decode = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // not UTF-8: a name from another system
  }
};

// The path below the site's root of *address*, as the server names it; null for another server's.
function pathOf(address, base = document.baseURI) {
  const url = address && URL.canParse(address, base) && new URL(address, base);
  if (!url || url.origin !== SITE.origin || !url.pathname.startsWith(SITE.pathname)) return null;
  return decode(url.pathname.slice(SITE.pathname.length - 1));
}

const addressOf = (path) => {
  const names = path.slice(1).split("/");
  return new URL(names.map(encodeURIComponent).join("/"), SITE);
};

// --- Stylesheets

const sheets = (root = document) => [
  ...root.querySelectorAll("link[rel~=stylesheet i], style"),
];

// Waits until a stylesheet is there, or is not going to be.
function waitLoaded(element) {
  const once = (name) => new Promise((done) => element.addEventListener(name, done));
  return Promise.race([once("load"), once("error"), sleep(SHEET_TIMEOUT)]);
}

// The paths of a stylesheet and of all that it imports.
function pathsOf(sheet) {
  const paths = [pathOf(sheet.href)];
  for (const rule of rulesOf(sheet)) {
    if (!(rule instanceof CSSImportRule)) continue;
    if (rule.styleSheet) paths.push(...pathsOf(rule.styleSheet));
    else paths.push(pathOf(rule.href, sheet.href ?? document.baseURI));
  }
  return paths;
}

function rulesOf(sheet) {
  try {
    return [...sheet.cssRules];
  } catch {
    return []; // another origin's
  }
}

// Each is loaded again beside the old one, which goes when the new one is there: there is no moment
// without either.
async function swapStylesheets(isChanged, mirror) {
  const swapped = [];
  const swap = async (old) => {
    const paths = old.sheet ? pathsOf(old.sheet) : [pathOf(old.href)];
    if (!paths.some(isChanged)) return;
    swapped.push(...paths);
    const fresh = old.cloneNode(true);
    const loaded = waitLoaded(fresh);
    old.after(fresh);
    await loaded;
    mirror?.replace(old, fresh);
    old.remove();
  };
  await Promise.all(sheets().map(swap));
  stampImages();
  return swapped;
}

// Loads the stylesheets that *root* needs before *root* is shown: else it would be seen for a
// moment without them. Returns their elements.
async function preloadStylesheets(root) {
  const known = new Set(sheets().map((sheet) => sheet.href));
  const links = sheets(root).filter((sheet) => sheet.localName === "link");
  const fresh = links
    .map((link) => document.importNode(link))
    .filter((link) => !known.has(link.href));
  const load = (link) => {
    document.head.append(link);
    return waitLoaded(link);
  };
  await Promise.all(fresh.map(load));
  return fresh;
}

// --- Images

const stamps = new Map(); // for the path of each image that was swapped: what makes its URL new
const IMAGES = "img, input[src], picture source, video[poster], svg image, link[rel~=icon i]";
const IMAGE_FILE = /\.(avif|bmp|gif|ico|jpe?g|png|svg|webp)$/i;
const SEPARATORS = { src: /$/, srcset: /,\s+/, href: /$/, poster: /$/ }; // between addresses

const addressesIn = (value, name) =>
  value.split(SEPARATORS[name]).map((part) => part.trim().split(/\s/)[0]);

async function swapImages(isChanged, loaded, stamp) {
  const uses = [];
  for (const element of document.querySelectorAll(IMAGES)) {
    for (const name of Object.keys(SEPARATORS)) {
      const value = element.getAttribute(name);
      if (!value) continue;
      const paths = addressesIn(value, name).map((address) => pathOf(address)).filter(isChanged);
      if (paths.length) uses.push({ element, name, value, paths });
    }
  }
  const byStyle = [...loaded].filter((path) => isChanged(path) && IMAGE_FILE.test(path));
  const paths = new Set([...byStyle, ...uses.flatMap((use) => use.paths)]);
  // Into the browser's cache: an element that asks for the same address once more would get the old
  // image from there.
  const load = (path) => fetch(addressOf(path), { cache: "reload" }).catch(() => {});
  await Promise.all([...paths].map(load));
  for (const { element, name, value } of uses) element.setAttribute(name, value);
  for (const path of byStyle) stamps.set(path, stamp);
  stampImages();
  return [...paths];
}

// A browser keeps an image of a stylesheet as long as its address is the same, whatever the cache
// has: so the address gets a stamp.
function stampImages() {
  if (!stamps.size) return;
  for (const sheet of document.styleSheets) stampSheet(sheet, sheet.href ?? document.baseURI);
  for (const element of document.querySelectorAll("[style*='url(']")) {
    stampStyle(plain(element).style, document.baseURI);
  }
}

function stampSheet(sheet, base) {
  for (const rule of rulesOf(sheet)) {
    if (rule.style) stampStyle(rule.style, base);
    if (rule.styleSheet) stampSheet(rule.styleSheet, rule.styleSheet.href);
    else if (rule.cssRules) stampSheet(rule, base);
  }
}

function stampStyle(style, base) {
  for (const name of style) {
    const value = style.getPropertyValue(name);
    const stamped = value.replace(/url\("([^"]*)"\)/g, (all, address) => {
      const stamp = stamps.get(pathOf(address, base));
      return stamp ? `url("${new URL("?" + stamp, new URL(address, base))}")` : all;
    });
    if (stamped !== value) style.setProperty(name, stamped, style.getPropertyPriority(name));
  }
}

// --- Frames

// Whether there is a script like this one in *frame*, so that its page follows by itself.
const follows = ({ contentWindow }) =>
  contentWindow.performance.getEntriesByName(new URL("-/follow.js", SITE)).length > 0;

function swapFrames(isChanged) {
  const swapped = [];
  for (const frame of document.querySelectorAll("iframe, frame")) {
    // Another origin's document is null.
    const path = frame.contentDocument && pathOf(frame.contentWindow.location.href);
    if (!isChanged(path)) continue;
    swapped.push(path);
    if (!follows(frame)) frame.contentWindow.location.reload();
  }
  return swapped;
}
