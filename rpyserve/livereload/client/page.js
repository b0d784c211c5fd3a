// The page as the server sends it now: fetched, decoded as a browser does it, parsed, and judged.
//
// What is done with it is not decided here. Uses plain, and decode of assets.js.

const PAGE_TIMEOUT = 10000; // ms after which a page that does not come is given up
const END = "data-rpyserve-end"; // marks the end of the text: where is it when that is parsed?
const RAW = "title, textarea, style, script, iframe, noembed, noframes, noscript, xmp, template";
const UNSEEN = "select, object, video, audio, canvas, svg, math";

const readTag = ({ dataset }) => ({
  ...dataset,
  sources: new Set(dataset.sources.split(" ").map(decode)),
});

const addressOfPage = () => location.href.replace(/#.*/s, "");

// Returns null if the server has gone away, else an object with one of
//   mustLoad: true, for what only the browser itself can load, such as a redirect;
//   obstacle: why a page that follows should not give way to this;
//   page, parsed and root: what the tag says, the document and its root.
async function fetchPage(cursor) {
  const options = {
    headers: { Accept: "text/html,application/xhtml+xml,*/*;q=0.8", "Rpyserve-Follow": cursor },
    cache: "no-store",
    redirect: "manual",
    signal: AbortSignal.timeout(PAGE_TIMEOUT),
  };
  let content, response;
  try {
    response = await fetch(addressOfPage(), options);
    content = await response.arrayBuffer();
  } catch (error) {
    return error.name === "TimeoutError" ? { mustLoad: true } : null;
  }
  if (response.type === "opaqueredirect" || response.status === 401) return { mustLoad: true };
  const type = response.headers.get("Content-Type") ?? "";
  if (!/^text\/html\b/i.test(type)) return { obstacle: "What is saved now is not an HTML page." };
  return parsePage(decodeText(content, type));
}

// --- Encodings (HTML Standard, section 13.2.3)

function decodeText(content, type) {
  const labels = [
    () => hasMark(content) && "utf-8",
    () => charsetIn(type),
    () => declaredIn(content),
    () => document.characterSet, // this page said nothing either
    () => "utf-8",
  ];
  for (const label of labels) {
    const decoder = decoderFor(label());
    if (decoder) return decoder.decode(content);
  }
}

const hasMark = (content) => String(new Uint8Array(content.slice(0, 3))) === "239,187,191";
const charsetIn = (type) => /\bcharset\s*=\s*["']?([^\s"';]+)/i.exec(type)?.[1];

// The encoding that a <meta> names: it is in ASCII, whatever that is.
function declaredIn(content) {
  const text = new TextDecoder("latin1").decode(content);
  const parsed = plain(new DOMParser().parseFromString(text, "text/html"));
  for (const meta of parsed.querySelectorAll("meta[charset], meta[http-equiv=content-type i]")) {
    const label = meta.getAttribute("charset") ?? charsetIn(meta.content);
    if (decoderFor(label)) return /^utf-16/i.test(label) ? "utf-8" : label;
  }
}

function decoderFor(label) {
  try {
    return label ? new TextDecoder(label) : null;
  } catch {
    return null; // nobody knows it
  }
}

// --- Markup

// The page as it was when this one was loaded, if the server still has it.
async function fetchSent(name) {
  const response = await fetch(new URL(`-/sent?name=${name}`, SITE));
  if (!response.ok) return null;
  const type = response.headers.get("Content-Type");
  return parse(decodeText(await response.arrayBuffer(), type)).documentElement;
}

function parsePage(text) {
  const parsed = parse(`${text}<meta ${END}>`);
  const open = unfinishedIn(parsed);
  if (open) return { obstacle: `The page that is saved now ends inside an unfinished ${open}.` };
  parsed.querySelector(`meta[${END}]`)?.remove();
  parsed.querySelector("script[data-rpyserve-errors]")?.remove();
  const found = parsed.querySelector("script[data-rpyserve]");
  if (!found) return { obstacle: "The page that is saved now does not allow live reload." };
  found.remove();
  return { parsed, root: parsed.documentElement, page: readTag(found) };
}

function parse(text) {
  const parsed = plain(new DOMParser().parseFromString(text, "text/html"));
  // Where scripts run, as in this page but not in that parser, the content of noscript is text.
  for (const element of parsed.querySelectorAll("noscript")) {
    element.textContent = element.innerHTML;
  }
  return parsed;
}

// What has taken in the end of the text, if anything: somebody is still typing there.
function unfinishedIn(parsed) {
  const end = parsed.querySelector(`meta[${END}]`);
  const around = end?.closest(UNSEEN);
  if (around) return `<${around.localName}>`;
  if (end || parsed.querySelector("frameset")) return "";
  const raw = [...parsed.querySelectorAll(RAW)].find(({ innerHTML }) => innerHTML.includes(END));
  if (raw) return `<${raw.localName}>`;
  const comments = parsed.createTreeWalker(parsed.getRootNode(), NodeFilter.SHOW_COMMENT);
  while (comments.nextNode()) if (comments.currentNode.data.includes(END)) return "comment";
  return "tag";
}
