"""What a page has to be for everyone, asked of it in a browser: contrast, names, the keyboard, nothing cut off."""

from __future__ import annotations

from typing import Any

PATIENCE = 120_000  # milliseconds, after which anything that is waited for has failed

CONTRAST = """() => {
  const straighten = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const parts = [0.2126, 0.7152, 0.0722];
  const luminance = (colour) => colour.reduce((sum, c, k) => sum + straighten(c / 255) * parts[k], 0);
  const read = (text) => text.match(/[\\d.]+/g).map(Number);
  const lay = ([r, g, b, share = 1], ground) => [r, g, b].map((part, k) => share * part + (1 - share) * ground[k]);
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = read(getComputedStyle(at).backgroundColor);
      layers.push(colour);
      if (colour.length === 3 || colour[3] === 1) break;
    }
    return layers.reduceRight((ground, colour) => lay(colour, ground), [255, 255, 255]);
  };
  const found = [];
  let count = 0;
  for (const element of document.body.querySelectorAll('*')) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const isField = element.matches('input:not([type=radio], [type=checkbox]), select');
    if (!(hasText || isField) || !element.getClientRects().length) continue;
    if (element.closest('script, noscript, .skip')) continue;
    const ground = behind(element);
    const levels = [luminance(lay(read(getComputedStyle(element).color), ground)), luminance(ground)];
    const ratio = (Math.max(...levels) + 0.05) / (Math.min(...levels) + 0.05);
    count++;
    if (ratio < 4.5) found.push(`${element.outerHTML.slice(0, 80)} has ${ratio.toFixed(2)}`);
  }
  return { count, found };
}"""

# Of a group of radio buttons Tab reaches the chosen one, and the arrow keys the others.
CONTROLS = (
    "button:enabled, a[href], input:enabled:not([type=radio]:not(:checked)), select:enabled, summary, [tabindex='0']"
)

REACHABLE = f"""() => [...document.querySelectorAll("{CONTROLS}")]
  .filter((element) => element.getClientRects().length && element.tabIndex >= 0)
  .map((element, index) => (element.dataset.control = String(index)))"""

FOCUSED = "() => document.activeElement.dataset.control ?? null"

UNNAMED = """() => [...document.querySelectorAll('canvas, img, input, select, button, a, summary')]
  .filter((element) => element.getClientRects().length)
  .filter((element) => {
    const isPicture = element.matches('canvas, img');
    const name = element.getAttribute('aria-label') ?? element.getAttribute('alt') ??
      (isPicture ? '' : (element.labels?.length ? element.labels[0].textContent : element.textContent));
    const title = element.getAttribute('title') ?? '';
    return !(name.trim() || title.trim()) || (element.matches('canvas') && element.getAttribute('role') !== 'img');
  })
  .map((element) => element.outerHTML.slice(0, 100))"""

SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def find_faults(page: Any) -> list[str]:
    """Return texts with a contrast below 4.5, pictures and controls without a name, and whether the side is cut off."""
    sideways = page.evaluate(SIDEWAYS)
    wide = [f"{sideways} pixels too wide"] if sideways > 0 else []
    return [*page.evaluate(CONTRAST)["found"], *page.evaluate(UNNAMED), *wide]


def check_everyone(page: Any) -> int:
    """Assert contrast of 4.5 or more, names for all pictures and controls, and that nothing is cut off at the side.

    Returns how many texts were measured.
    """
    assert find_faults(page) == []
    contrast = page.evaluate(CONTRAST)
    text = page.inner_text("body")
    assert not [word for word in ("[object", "undefined", "NaN") if word in text]
    count: int = contrast["count"]
    return count


def check_keyboard(page: Any) -> int:
    """Assert that Tab reaches every control that is shown; returns how many there are."""
    controls = page.evaluate(REACHABLE)
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    reached = set()
    for _ in range(len(controls) + 20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(FOCUSED))
        if len(reached - {None}) == len(controls):
            break
    assert reached - {None} == set(controls)
    return len(controls)
