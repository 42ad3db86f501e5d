"""The style sheet of the report: light and dark, readable without colour, fit to print."""

from evaluation.figures import INK, LINE, PAPER, page_colours

_LIGHT = (
    f"--ink: {INK}; --soft: #5b6470; --paper: {PAPER}; --panel: #f5f7f9; --line: {LINE}; "
    f"--good: #00664d; --bad: #a33600; --mark: #fde7d9; {page_colours(dark=False)}"
)
_DARK = (
    "--ink: #e6e9ec; --soft: #a3adb8; --paper: #14171a; --panel: #1d2226; --line: #353c43; "
    f"--good: #6fd6b5; --bad: #ffae85; --mark: #4a2a16; {page_colours(dark=True)}"
)

REPORT_CSS = (
    f"\n:root {{ color-scheme: light dark; {_LIGHT} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}\n"
    # Paper is light, whatever the screen was.
    f"@media print {{ :root {{ color-scheme: light; {_LIGHT} }} }}"
    """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .7rem; }
p, li { max-width: 46rem; }
.meta, caption, figcaption { color: var(--soft); font-size: .9rem; }
.summary { background: var(--panel); border-left: 4px solid var(--good);
  padding: .6rem 1.2rem; border-radius: 0 6px 6px 0; }
.summary ul { padding-left: 1.1rem; margin: .3rem 0; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .6rem; }
th, td { padding: .45rem .6rem; text-align: right; border-top: 1px solid var(--line);
  white-space: nowrap; }
thead th { background: var(--panel); font-weight: 600; white-space: normal;
  vertical-align: bottom; }
th:first-child, .text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; }
td.holds { color: var(--good); font-weight: 600; }
td.fails { color: var(--bad); font-weight: 600; }
.plots { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); }
figure { margin: 0; }
figure.wide { grid-column: 1 / -1; }
figure svg { display: block; width: 100%; height: auto; border: 1px solid var(--line);
  border-radius: 6px; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption p { margin: .3rem 0 0; }
summary { cursor: pointer; }
:focus-visible { outline: 3px solid var(--blue); outline-offset: 2px; }
.transcript { font: .9rem/1.7 ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
.transcript del, .transcript ins { background: var(--mark); border-radius: 3px; padding: 0 .2em; }
.transcript ins { text-decoration: underline; }
.id { overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
@media print { .scroll { overflow: visible; } h2 { break-after: avoid; } }
"""
)
