/** The results as a picture: medians as bars, the range of the samples as a line on each. */

import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';

import type { Report, Result } from './results.js';

const PANEL = { width: 260, height: 170 };

function rowOf({ pairing, path, size, mpps, ratio }: Result) {
  return {
    pairing,
    panel: `${path}, ${size} bytes`,
    median: mpps.median,
    least: mpps.max - mpps.spread,
    most: mpps.max,
    label: ratio === null ? '' : `× ${ratio.toFixed(2)}`,
  };
}

/** The picture as SVG text. */
export async function plotReport(report: Report): Promise<string> {
  const names = [...new Set(report.results.map((result) => result.pairing))];
  const rows = report.results.map(rowOf);
  const panels = [...new Set(rows.map((row) => row.panel))];
  const x = { field: 'pairing', type: 'nominal', sort: names, axis: { title: null, labelAngle: 0 } } as const;
  const spec: TopLevelSpec = {
    title: `Mpps, median of the rounds, with ratios to DPDK (${report.regime ?? 'regime unknown'})`,
    data: { values: rows },
    facet: { field: 'panel', type: 'nominal', header: { title: null }, sort: panels },
    columns: 2,
    resolve: { scale: { y: 'independent', x: 'independent' } },
    spec: {
      ...PANEL,
      layer: [
        {
          mark: 'bar',
          encoding: {
            x,
            y: { field: 'median', type: 'quantitative', axis: { title: null } },
            color: { field: 'pairing', type: 'nominal', sort: names, legend: null },
          },
        },
        {
          mark: 'rule',
          encoding: { x, y: { field: 'least', type: 'quantitative' }, y2: { field: 'most' } },
        },
        {
          mark: { type: 'text', dy: -6 },
          encoding: { x, y: { field: 'most', type: 'quantitative' }, text: { field: 'label' } },
        },
      ],
    },
  };
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}
