"""Style sheet of all pages: light and dark, from a phone to a wide screen."""

STYLE_SHEET = """
:root { color-scheme: light dark; --text: #1d2430; --soft: #5b6573; --line: #d9dee5;
  --page: #fbfbf9; --mark: #fff4c2; --link: #0b5cad; --blue: #0072b2; --grey: #808080;
  --brown: #a0652d; --red: #c23b3b; --purple: #882255; --violet: #7a5fc0; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ee; --soft: #a3adba; --line: #39424e; --page: #171b21; --mark: #4a4216;
    --link: #8fc1ff; --blue: #3fa7e8; --grey: #a8a8a8; --brown: #c98a4b; --red: #e66a6a;
    --purple: #cc6699; --violet: #a48be6; } }
body { background: var(--page); color: var(--text); margin: 0 auto; max-width: 72rem;
  padding: 2.5rem 1.5rem 5rem; font: 1.02rem/1.6 system-ui, "Segoe UI", Roboto, sans-serif; }
a { color: var(--link); }
h1 { font-size: 1.1rem; font-weight: 600; color: var(--soft); margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 0.8rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
.headline { font-size: 1.4rem; line-height: 1.45; max-width: 52rem; margin: 0 0 1rem; }
.legend { margin: 1.5rem 0 0.8rem; padding: 0; list-style: none; color: var(--soft);
  font-size: 0.92rem; line-height: 1.5; }
.legend li { max-width: none; margin-bottom: 0.25rem; }
.legend b { color: var(--text); font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.35rem 0.5rem; text-align: right; white-space: nowrap;
  vertical-align: baseline; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th abbr { text-decoration: underline dotted; text-underline-offset: 0.25em; cursor: help; }
th:first-child, td:first-child { text-align: left; white-space: normal;
  min-width: clamp(4rem, var(--name, 0rem), 15rem);
  position: sticky; left: 0; background: var(--page); }
tr.samples td { background: var(--mark); font-weight: 600; }
tr.first-baseline td { border-top: 2px solid var(--soft); }
th.left, td.left { text-align: left; }
th.words, td.words { text-align: left; white-space: normal; min-width: 14rem; }
td .soft { font-weight: 400; font-size: 0.85em; }
figure { margin: 1.8rem 0; max-width: 60rem; }
figure svg { width: 100%; height: auto; display: block; overflow: visible; }
figure svg.narrow { display: none; }
figcaption { color: var(--soft); font-size: 0.95rem; max-width: 46rem; margin-top: 0.4rem; }
details { margin: 0.6rem 0; } summary { cursor: pointer; }
details td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
details th:first-child, details td:first-child { min-width: 9rem; }
pre { overflow-x: auto; font-size: 0.88rem; line-height: 1.5; padding: 0.7rem 0.9rem;
  border: 1px solid var(--line); border-radius: 6px; }
.soft { color: var(--soft); }
@media (max-width: 720px) {
  body { padding: 1.2rem 0.9rem 3rem; font-size: 0.98rem; }
  .headline { font-size: 1.15rem; }
  h2 { margin-top: 2.2rem; }
  th { white-space: normal; } td .soft { display: block; }
  th.words, td.words { min-width: 10rem; }
  th:first-child, td:first-child { min-width: clamp(4rem, var(--name, 0rem), 7.5rem);
    max-width: 8.5rem; font-size: 0.82rem;
    overflow-wrap: anywhere; border-right: 1px solid var(--line); }
  figure svg.wide { display: none; }
  figure svg.narrow { display: block; max-width: 26rem; } }
"""
