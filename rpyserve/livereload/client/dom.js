// The DOM as it is, whatever names a page gives to its elements.
//
// An <img name="currentScript"> hides document.currentScript, and an <input name="remove"> hides
// remove() of its form (HTML Standard, 3.1.7 and 4.10.3). What a page shows may come from somebody
// who is not its author, so whatever is asked of a document, or of an element that may be a form,
// goes through plain(). Nothing hides members of other elements, nor what window has.

// Returns *node* with the members of its class only. To other functions, pass *node* itself.
function plain(node) {
  const kind = [Document, HTMLFormElement].find((each) => node instanceof each);
  if (!kind) return node;
  return new Proxy(node, {
    get(_, name) {
      const value = Reflect.get(kind.prototype, name, node);
      return typeof value === "function" ? value.bind(node) : value;
    },
    set: (_, name, value) => Reflect.set(kind.prototype, name, value, node),
  });
}

const document = plain(window.document);
