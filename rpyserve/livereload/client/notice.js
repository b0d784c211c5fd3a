// Quiet notices in a corner of the page, one at a time, which the visitor can close.
//
// They are in a shadow tree that no style of the page reaches, outside the body, and styled in the
// one way that no policy forbids. They say what the page cannot show by itself, never what happens
// as a matter of course.

const NOTICE_STYLE = new CSSStyleSheet();
NOTICE_STYLE.replaceSync(`
  :host { all: initial !important; position: fixed !important; right: 1rem !important;
    bottom: 1rem !important; z-index: 2147483647 !important; color-scheme: light dark !important }
  div { display: flex; gap: .75rem; align-items: center; max-width: min(26rem, 80vw);
    padding: .5rem .75rem; font: 14px/1.4 system-ui, sans-serif;
    color: light-dark(#1d2329, #e4e8ec); background: light-dark(#fff, #1f252b);
    border: 1px solid light-dark(#d8dee4, #333c45); border-radius: .4rem;
    box-shadow: 0 2px 8px #0003 }
  button { font: inherit; color: light-dark(#0b5cad, #7ab8ff); background: none; border: 0;
    padding: 0; cursor: pointer; white-space: nowrap }
  @media print { :host { display: none !important } }`);

let notice = null;

// Shows *text*, with a button called *action* that runs *onAction* where there is one.
function showNotice(text, action, onAction) {
  hideNotice();
  notice = document.createElement("rpyserve-notice");
  const box = document.createElement("div");
  box.setAttribute("role", "status");
  box.append(text);
  if (action) box.append(button(action, action, onAction));
  box.append(button("×", "Close", hideNotice));
  const root = notice.attachShadow({ mode: "open" });
  root.adoptedStyleSheets = [NOTICE_STYLE];
  root.append(box);
  document.documentElement.append(notice);
}

function hideNotice() {
  notice?.remove();
  notice = null;
}

function button(label, name, onClick) {
  const made = document.createElement("button");
  made.setAttribute("aria-label", name);
  made.append(label);
  made.addEventListener("click", onClick);
  return made;
}
