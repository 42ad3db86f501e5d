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
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: clamp(1.35rem, 1rem + 1.6vw, 2rem); line-height: 1.25; margin: .2rem 0 .6rem;
  max-width: 60rem; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .7rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, li { max-width: 46rem; }
.meta, caption, figcaption, .hint, small { color: var(--soft); font-size: .9rem; }
.meta { margin: 0 0 .3rem; }
.reservation { border-left: 4px solid var(--bad); padding: .2rem 0 .2rem .9rem; margin: .6rem 0; }
.first { display: grid; gap: 1.5rem 2.5rem; align-items: center; margin-top: 1.4rem;
  grid-template-columns: minmax(13rem, 1fr) minmax(0, 2fr); }
.numbers { display: grid; gap: 1.1rem; margin: 0; }
.numbers div { display: flex; flex-direction: column-reverse; }
.numbers dd { margin: 0; font-size: 2.9rem; line-height: 1.1; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.numbers dt { color: var(--soft); max-width: 18rem; line-height: 1.35; }
.summary { background: var(--panel); border-left: 4px solid var(--good); margin-top: 1.2rem;
  padding: .6rem 1.2rem; border-radius: 0 6px 6px 0; }
.summary ul { padding-left: 1.1rem; margin: .3rem 0; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
.cards { border: 1px solid var(--line); border-radius: 6px; }
.hint { display: none; margin: .2rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .6rem; }
th, td { padding: .45rem .6rem; text-align: right; border-top: 1px solid var(--line);
  white-space: nowrap; }
thead th { background: var(--panel); font-weight: 600; white-space: normal;
  vertical-align: bottom; min-width: 5.2rem; }
.narrow { display: none; }
.narrow small { display: block; line-height: 1.3; }
thead small { display: block; font-weight: 400; font-size: .8rem; line-height: 1.3; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
thead th:first-child { background: var(--panel); }
td.holds { color: var(--good); font-weight: 600; }
td.fails { color: var(--bad); font-weight: 600; }
.plots { display: grid; gap: 1.6rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
figure { margin: 0; min-width: 0; }
figure.wide { grid-column: 1 / -1; }
figure svg { display: block; width: 100%; height: auto; }
figure > svg { border: 1px solid var(--line); border-radius: 6px; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { margin-bottom: .3rem; color: var(--ink); font-weight: 600; }
details { color: var(--soft); font-size: .9rem; margin-top: .3rem; }
details p { margin: .3rem 0 0; }
summary { cursor: pointer; }
:focus-visible { outline: 3px solid var(--blue); outline-offset: 2px; }
.heard { margin: 0; }
.heard div { display: grid; grid-template-columns: 8rem 1fr; gap: .2rem .8rem;
  border-top: 1px solid var(--line); padding: .3rem 0; }
.heard dd { margin: 0; }
.transcript { font: .9rem/1.7 ui-monospace, "DejaVu Sans Mono", Menlo, monospace;
  overflow-wrap: anywhere; }
.transcript del, .transcript ins { background: var(--mark); border-radius: 3px; padding: 0 .2em; }
.transcript ins { text-decoration: underline; }
.id, code { overflow-wrap: anywhere; }
.scroll table { font-size: .8rem; }
.scroll th, .scroll td { padding: .4rem .45rem; }
.scroll thead th { min-width: 3.8rem; }
@media (max-width: 72rem) { .hint { display: block; } }
@media (max-width: 48rem) {
  .first { grid-template-columns: minmax(0, 1fr); }
  .numbers dd { font-size: 2.4rem; }
  .wide .scroll svg { width: 46rem; }
  .heard div { grid-template-columns: 1fr; }
  /* The comparison as a card for each model: nothing to scroll. */
  .cards thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  .cards table, .cards tbody, .cards tr, .cards caption { display: block; }
  .cards tr { border-top: 1px solid var(--line); padding: .5rem .8rem; }
  .cards th, .cards td { display: flex; justify-content: space-between; gap: 1rem; border: 0;
    padding: .15rem 0; white-space: normal; position: static; }
  .cards th { font-size: 1.05rem; }
  .cards .narrow { display: block; text-align: left; }
  .cards td span { white-space: nowrap; }
  .cards .narrow, .cards .narrow small { white-space: normal; }
}
@media print { .scroll { overflow: visible; } .hint { display: none; } h2 { break-after: avoid; } }
"""
)
