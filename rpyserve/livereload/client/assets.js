// Swapping what a page has loaded (stylesheets, images, frames) for what the server has now.
//
// A browser keeps what a document has loaded for as long as that is open, and asks nobody when the
// same address comes again. So what has changed gets a stamp in the query of its address, wherever
// the page uses it: in elements, stylesheets, styles of elements, and open shadow roots. What an
// author wrote is otherwise left alone.
//
// Everything here takes *isChanged*, which says of a file's path whether that is to be swapped, and
// returns the paths that the page now shows: only those of which all uses could be found.
// Needs SITE, the address of the site's root.

const ASSET_TIMEOUT = 2000; // ms after which nobody waits for a stylesheet or an image any more
const STAMP_NAME = "rpyserve";

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

// --- Stamps

const stamps = new Map(); // for the path of each file that was swapped: what makes its address new

// Returns *address* with a stamp in place of the one that it may have.
function stampAddress(address, stamp) {
  const [bare, ...rest] = address.split(/(?=#)/);
  const old = bare.replace(new RegExp(`[?&]${STAMP_NAME}=.*`), "");
  return `${old}${old.includes("?") ? "&" : "?"}${STAMP_NAME}=${stamp}${rest.join("")}`;
}

// Returns *text* with stamps in the addresses that *kind* finds in it, and what these became: a map
// from their paths.
function stampText(text, kind, base) {
  const found = new Map();
  const stamped = text.replace(kind.pattern, (match, ...groups) => {
    const address = kind.read(groups);
    const path = pathOf(address, base);
    if (!stamps.has(path)) return match;
    const fresh = stampAddress(address, stamps.get(path));
    found.set(path, new URL(fresh, base).href);
    return fresh === address ? match : kind.write(match, address, fresh);
  });
  return { stamped, found };
}

const replaceIn = (match, address, fresh) => match.replace(address, () => fresh);

// The kinds of texts: the address alone, several with sizes (srcset), and CSS.
const WHOLE = { pattern: /^\s*(\S.*?)\s*$/gs, read: ([address]) => address, write: replaceIn };
const CANDIDATES = {
  pattern: /(?:^|,)\s*([^\s,]+)/g,
  read: ([address]) => address,
  write: replaceIn,
};
const CSS_URL = {
  pattern: /url\(\s*(?:"([^"]*)"|'([^']*)'|([^"'()\s]+))\s*\)/g,
  read: (groups) => (groups[0] ?? groups[1] ?? groups[2]).replace(/\\([^0-9a-f])/gi, "$1"),
  write: (match, address, fresh) => `url("${fresh.replace(/["\\]/g, "\\$&")}")`,
};

// The document, and the shadow roots in it as far as they are open.
function rootsIn(root) {
  const hosts = [...root.querySelectorAll("*")].map(plain);
  const inside = hosts.filter((host) => host.shadowRoot).map((host) => rootsIn(host.shadowRoot));
  return [root, ...inside.flat()];
}

// Waits until a stylesheet or an image is there, or is not going to be.
function waitLoaded(element) {
  const once = (name) => new Promise((done) => element.addEventListener(name, done));
  return Promise.race([once("load"), once("error"), sleep(ASSET_TIMEOUT)]);
}

// --- Stylesheets

const sheets = (root = document) => [
  ...root.querySelectorAll("link[rel~=stylesheet i], style"),
];

function rulesOf(sheet) {
  try {
    return [...sheet.cssRules];
  } catch {
    return []; // another origin's, or not there yet
  }
}

const importsOf = (sheet) =>
  sheet ? rulesOf(sheet).filter((rule) => rule instanceof CSSImportRule) : [];

const baseOf = (sheet) => sheet.href ?? document.baseURI;

// The paths of a stylesheet and of all that it imports.
function pathsOf(sheet) {
  const paths = [pathOf(sheet.href)];
  for (const rule of importsOf(sheet)) {
    if (rule.styleSheet) paths.push(...pathsOf(rule.styleSheet));
    else paths.push(pathOf(rule.href, baseOf(sheet)));
  }
  return paths;
}

// Each is loaded again before the old one, which still wins, and goes when the new one is there
// with all that it imports: there is no moment without either.
async function swapStylesheets(isChanged, stamp, mirror) {
  const elements = rootsIn(document).flatMap((root) => sheets(root));
  const paths = elements.flatMap(({ sheet, href }) => (sheet ? pathsOf(sheet) : [pathOf(href)]));
  const swapped = paths.filter(isChanged);
  for (const path of swapped) stamps.set(path, stamp);
  if (!stamps.size) return swapped;
  const outdated = elements.filter(isOutdated);
  const fresh = await Promise.all(outdated.map(loadBefore));
  await stampImages();
  for (const [index, old] of outdated.entries()) {
    mirror?.replace(old, fresh[index]);
    old.remove();
  }
  return swapped;
}

const stampHref = (element) =>
  stampText(element.getAttribute("href") ?? "", WHOLE, document.baseURI).stamped;
const stampImport = (rule, sheet) => stampText(rule.cssText, CSS_URL, baseOf(sheet));

function isOutdated(element) {
  const { sheet } = element;
  return stampHref(element) !== (element.getAttribute("href") ?? "") || hasOutdatedImports(sheet);
}

const hasOutdatedImports = (sheet) =>
  importsOf(sheet).some(
    (rule) =>
      stampImport(rule, sheet).stamped !== rule.cssText || hasOutdatedImports(rule.styleSheet),
  );

// Returns a copy of the element *old*, before it.
async function loadBefore(old) {
  const fresh = old.cloneNode(true);
  if (old.hasAttribute("href")) fresh.setAttribute("href", stampHref(old));
  const loaded = waitLoaded(fresh);
  old.before(fresh);
  await loaded;
  await swapImports(fresh.sheet);
  return fresh;
}

async function swapImports(sheet) {
  for (const rule of importsOf(sheet)) {
    const { stamped, found } = stampImport(rule, sheet);
    if (stamped === rule.cssText) await swapImports(rule.styleSheet);
    else await swapImports(await replaceImport(sheet, rule, stamped, ...found.values()));
  }
}

// Puts the rule *text* in the place of *old*, and returns the stylesheet that it imports, from
// *address*. A rule does not tell when that is there: so a link of the same address, which styles
// nothing, does. It comes first, since some browsers take away all styles while an import loads.
async function replaceImport(sheet, old, text, address) {
  const probe = document.createElement("link");
  Object.assign(probe, { rel: "stylesheet", media: "not all", href: address });
  const loaded = waitLoaded(probe);
  document.head.append(probe);
  await loaded;
  const index = rulesOf(sheet).indexOf(old);
  sheet.deleteRule(index);
  const fresh = sheet.cssRules[sheet.insertRule(text, index)];
  const deadline = Date.now() + ASSET_TIMEOUT;
  const count = (imported) => (imported ? rulesOf(imported).length : 0);
  while (count(fresh.styleSheet) !== count(probe.sheet) && Date.now() < deadline) await sleep(5);
  probe.remove();
  return fresh.styleSheet;
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

const IMAGES =
  "img, input[src], picture source, video[poster], svg image, svg use, link[rel~=icon i]";
const IMAGE_FILE = /\.(avif|bmp|gif|ico|jpe?g|png|svg|webp)$/i;
const SHORTHANDS = ["background", "border-image", "list-style", "mask"];
const ATTRIBUTES = {
  src: WHOLE,
  srcset: CANDIDATES,
  href: WHOLE,
  "xlink:href": WHOLE,
  poster: WHOLE,
};

// A canvas may have drawn what has changed, and keeps it: then nothing counts as shown, so that the
// page is loaded again.
async function swapImages(isChanged, loaded, stamp) {
  const uses = imageUses();
  const paths = new Set([...loaded].filter((path) => IMAGE_FILE.test(path)));
  for (const { text, kind, base } of uses) {
    for (const match of text.matchAll(kind.pattern)) {
      paths.add(pathOf(kind.read(match.slice(1)), base));
    }
  }
  const changed = [...paths].filter(isChanged);
  for (const path of changed) stamps.set(path, stamp);
  const hasCanvas = rootsIn(document).some((root) => root.querySelector("canvas"));
  if (changed.length && hasCanvas) return [];
  const shown = await stampImages(uses);
  return changed.filter((path) => shown.has(path));
}

// Where the page may show an image: texts with addresses in them, and how to write them anew.
function imageUses() {
  const uses = [];
  for (const root of rootsIn(document)) {
    for (const element of root.querySelectorAll(IMAGES)) uses.push(...usesInAttributes(element));
    for (const sheet of [...root.styleSheets, ...root.adoptedStyleSheets]) {
      uses.push(...usesInRules(sheet, baseOf(sheet)));
    }
    for (const element of root.querySelectorAll("[style*='url(']")) {
      uses.push(...usesInStyle(plain(element).style, document.baseURI));
    }
  }
  return uses;
}

const usesInAttributes = (element) =>
  Object.entries(ATTRIBUTES)
    .filter(([name]) => element.hasAttribute(name))
    .map(([name, kind]) => ({
      text: element.getAttribute(name),
      kind,
      base: document.baseURI,
      write: (text) => element.setAttribute(name, text),
    }));

function usesInRules(sheet, base) {
  return rulesOf(sheet).flatMap((rule) => {
    if (rule.styleSheet) return usesInRules(rule.styleSheet, baseOf(rule.styleSheet));
    const isStyle = rule.style && !(rule instanceof CSSFontFaceRule);
    return [
      ...(isStyle ? usesInStyle(rule.style, base) : []),
      ...(rule.cssRules ? usesInRules(rule, base) : []),
    ];
  });
}

// A shorthand with a variable in it is a text of its own: what it stands for reads as empty.
const usesInStyle = (style, base) =>
  [...style, ...SHORTHANDS.filter((name) => style.getPropertyValue(name).includes("var("))]
    .map((name) => ({
      text: style.getPropertyValue(name),
      kind: CSS_URL,
      base,
      write: (text) => style.setProperty(name, text, style.getPropertyPriority(name)),
    }))
    .filter(({ text }) => text.includes("url("));

// Writes the stamps into *uses*, and returns the paths that have a stamp there now.
async function stampImages(uses = imageUses()) {
  const changes = uses.map((use) => ({ ...use, ...stampText(use.text, use.kind, use.base) }));
  const fresh = changes.filter(({ text, stamped }) => text !== stamped);
  // Those of styles are loaded before they are shown. Elements do so themselves.
  const inStyles = fresh.filter(({ kind }) => kind === CSS_URL);
  const addresses = new Set(inStyles.flatMap(({ found }) => [...found.values()]));
  const images = await Promise.all([...addresses].map(loadImage));
  for (const { write, stamped } of fresh) write(stamped);
  images.length = 0; // until now the browser was to keep them
  return new Set(changes.flatMap(({ found }) => [...found.keys()]));
}

async function loadImage(address) {
  const image = new Image();
  const loaded = waitLoaded(image);
  image.src = address;
  await loaded;
  return image;
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
