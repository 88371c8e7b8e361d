// Elements made of texts, and changed only where something changed. Refuses to know: what they are for.

export const byId = (id) => document.getElementById(id);

/** Whatever comes from outside goes through here, so it is text and never markup. */
export function make(tag, className = "", ...content) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...content);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

export function draw(tag, attributes = {}, ...content) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...content);
  return node;
}

export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Null takes it away. */
export function mark(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

/**
 * Makes the children of `parent` exactly these. What stays in its order is not touched, so that it keeps its selection; what has the
 * focus never is, since it would lose it: the others move around it.
 */
export function place(parent, children) {
  const wanted = new Set(children);
  for (const child of [...parent.childNodes]) if (!wanted.has(child)) child.remove();
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const held = focused && children.find((child) => child.parentNode === parent && child.contains(focused));
  let at = parent.firstChild;
  for (const child of children) {
    if (child === held) {
      while (at !== held) {
        const later = at;
        at = at.nextSibling;
        parent.append(later);
      }
    }
    if (child === at) at = at.nextSibling;
    else parent.insertBefore(child, at);
  }
}
