// Swapping what a page has loaded (stylesheets, images, frames) for what the server has now, within the page.
//
// Everything here takes *has*, which says of the path of a file whether that is to be swapped, and gives the paths it
// dealt with. The attributes that an author wrote are never changed. Needs SITE, the address of the site's root.

const LATE = 2000; // ms after which nobody waits for a stylesheet any more

const sleep = (time) => new Promise((done) => setTimeout(done, time));

// --- Addresses

const decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // not UTF-8: a name from another system
  }
};

// The path below the site's root of what is at *address*, as the server names it; nothing for another server's.
function pathOf(address, base = document.baseURI) {
  const url = address && URL.canParse(address, base) && new URL(address, base);
  if (!url || url.origin !== SITE.origin || !url.pathname.startsWith(SITE.pathname)) return null;
  return decoded(url.pathname.slice(SITE.pathname.length - 1));
}

const addressOf = (path) => new URL(path.slice(1).split("/").map(encodeURIComponent).join("/"), SITE);

// --- Stylesheets

const sheets = (root = document) => [...root.querySelectorAll("link[rel~=stylesheet i], style")];

// When a stylesheet is there, or is not going to be.
function settled(element) {
  const events = ["load", "error"].map((name) => new Promise((done) => element.addEventListener(name, done)));
  return Promise.race([...events, sleep(LATE)]);
}

// The paths of a stylesheet and of all that it imports.
function pathsOf(sheet) {
  const paths = [pathOf(sheet.href)];
  for (const rule of rulesOf(sheet)) {
    if (!(rule instanceof CSSImportRule)) continue;
    paths.push(...(rule.styleSheet ? pathsOf(rule.styleSheet) : [pathOf(rule.href, sheet.href ?? document.baseURI)]));
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

// Each is loaded again beside the old one, which goes when the new one is there: never is there a moment without.
async function swapSheets(has, mirror) {
  const swapped = [];
  const swap = async (old) => {
    const paths = old.sheet ? pathsOf(old.sheet) : [pathOf(old.href)];
    if (!paths.some(has)) return;
    swapped.push(...paths);
    const fresh = old.cloneNode(true);
    const ready = settled(fresh);
    old.after(fresh);
    await ready;
    mirror?.replace(old, fresh);
    old.remove();
  };
  await Promise.all(sheets().map(swap));
  stampImages();
  return swapped;
}

// What *root* needs is loaded before *root* is shown: else it would be seen for a moment without its looks.
async function preload(root) {
  const known = new Set(sheets().map((sheet) => sheet.href));
  const links = sheets(root).filter((sheet) => sheet.localName === "link").map((link) => document.importNode(link));
  const early = links.filter((link) => !known.has(link.href));
  await Promise.all(early.map((link) => (document.head.append(link), settled(link))));
  return early;
}

// --- Images

const stamps = new Map(); // the path of each image that was swapped: what tells its address from the one before
const SOURCES = "img, input[src], picture source, video[poster], svg image, link[rel~=icon i]";
const BITS = { src: /$/, srcset: /,\s+/, href: /$/, poster: /$/ }; // how each attribute's addresses are told apart

const addresses = (value, name) => value.split(BITS[name]).map((bit) => bit.trim().split(/\s/)[0]);

async function swapImages(has, loaded, stamp) {
  const uses = [];
  for (const element of document.querySelectorAll(SOURCES)) {
    for (const name of Object.keys(BITS)) {
      const value = element.getAttribute(name);
      const paths = value ? addresses(value, name).map((one) => pathOf(one)).filter(has) : [];
      if (paths.length) uses.push({ element, name, value, paths });
    }
  }
  const byStyle = [...loaded].filter((path) => has(path) && /\.(avif|bmp|gif|ico|jpe?g|png|svg|webp)$/i.test(path));
  const paths = new Set([...byStyle, ...uses.flatMap((use) => use.paths)]);
  // Into the browser's cache: an element that asks for the same address once more would get the old one from there.
  await Promise.all([...paths].map((path) => fetch(addressOf(path), { cache: "reload" }).catch(() => {})));
  for (const { element, name, value } of uses) element.setAttribute(name, value);
  for (const path of byStyle) stamps.set(path, stamp);
  stampImages();
  return [...paths];
}

// An image of a stylesheet is kept by the browser as long as its address is the same, whatever the cache has.
function stampImages() {
  if (!stamps.size) return;
  for (const sheet of document.styleSheets) stampSheet(sheet, sheet.href ?? document.baseURI);
  for (const { style } of document.querySelectorAll("[style*='url(']")) stampStyle(style, document.baseURI);
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

function swapFrames(has) {
  const swapped = [];
  for (const frame of document.querySelectorAll("iframe, frame")) {
    const path = frame.contentDocument && pathOf(frame.contentDocument.URL); // nothing if it is another origin's
    if (!has(path)) continue;
    swapped.push(path);
    frame.contentWindow.location.reload();
  }
  return swapped;
}
