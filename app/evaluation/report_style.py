"""The style and the few lines of script of the report's page; plain text, inlined as it stands."""

from __future__ import annotations

STYLE = """
:root { --ground: #fbfaf8; --card: #fff; --ink: #1d1d1b; --soft: #6a6862; --line: #dcd9d2; --bad: #a32018;
  --c0: #8a867c; --c1: #1f6f8b; --c2: #b6562c; --c3: #4b7f3a; --c4: #7a4a9e; --c5: #b38600; }
@media (prefers-color-scheme: dark) { :root { --ground: #171716; --card: #20201e; --ink: #eceae5; --soft: #a19e96;
  --line: #3a3935; --bad: #ff8f84; --c0: #9c988e; --c1: #62b6d4; --c2: #ee9168; --c3: #8cc578; --c4: #bd93e0;
  --c5: #dfb53c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 8px 0; } h2 { font-size: 19px; margin: 36px 0 10px; }
h3 { font-size: 16px; margin: 0 0 10px; overflow-wrap: anywhere; }
p { margin: 6px 0; overflow-wrap: anywhere; } a { color: var(--c1); }
small { color: var(--soft); font-weight: normal; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { font-weight: 600; } tr > :first-child { text-align: left; padding-left: 0; }
th small { display: block; }
.words td, .words th, .note td { text-align: left; } .note td { color: var(--soft); font-size: 14px; }
td.best { font-weight: 700; text-decoration: underline; text-underline-offset: 3px; }
.bad { color: var(--bad); }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 7px; }
.legend span { margin-right: 18px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 20px; }
figure { margin: 0; min-width: 0; } figcaption, .caption { color: var(--soft); font-size: 14px; margin: 4px 0; }
.plot { width: 100%; height: auto; background: var(--card); border: 1px solid var(--line); border-radius: 6px; }
.plot text { fill: var(--ink); font-size: 12px; } .plot .name { text-anchor: end; }
.plot .tick { text-anchor: middle; fill: var(--soft); }
.plot .grid { stroke: var(--line); } .plot .join { stroke: var(--soft); opacity: .6; }
.c0 { fill: var(--c0); background: var(--c0); } .c1 { fill: var(--c1); background: var(--c1); }
.c2 { fill: var(--c2); background: var(--c2); } .c3 { fill: var(--c3); background: var(--c3); }
.c4 { fill: var(--c4); background: var(--c4); } .c5 { fill: var(--c5); background: var(--c5); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 16px 18px;
  margin: 0 0 22px; }
.pair { display: inline-block; margin: 14px 14px 0 0; max-width: 100%; vertical-align: top; }
.stage { --cut: 50%; position: relative; display: grid; max-width: 100%; }
.stage > *, .over > img { grid-area: 1 / 1; } img { display: block; max-width: 100%; height: auto; }
.over { clip-path: inset(0 calc(100% - var(--cut)) 0 0); }
.stage input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; background: none; cursor: ew-resize;
  -webkit-appearance: none; appearance: none; }
.stage input::-webkit-slider-runnable-track { height: 100%; background: none; }
.stage input::-webkit-slider-thumb { -webkit-appearance: none; width: 3px; height: 100%; background: #fff;
  box-shadow: 0 0 0 1px rgb(0 0 0 / .5); }
.stage input::-moz-range-track { background: none; }
.stage input::-moz-range-thumb { width: 3px; height: 100%; border: 0; border-radius: 0; background: #fff;
  box-shadow: 0 0 0 1px rgb(0 0 0 / .5); }
.stage input:focus-visible { outline: 2px solid var(--c1); outline-offset: 2px; }
.details { display: flex; flex-wrap: wrap; gap: 12px; }
@media print { .card { break-inside: avoid; } .stage input { display: none; } }
"""

SCRIPT = """
document.addEventListener('input', (event) => {
  const stage = event.target.closest('.stage');
  if (stage) stage.style.setProperty('--cut', event.target.value + '%');
});
"""
