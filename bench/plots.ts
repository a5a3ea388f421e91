/** The results as pictures. */

import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';

import { type AxisName, unitOf } from './axes.js';
import type { PICTURED } from './parts.js';
import type { Report } from './report.js';
import type { Result } from './results.js';

const PANEL = { width: 260, height: 170 };
const PANELS_IN_A_ROW = 3;

/** How each part is drawn; undefined where it was not measured. */
const DRAW: Readonly<Record<(typeof PICTURED)[number], (report: Report) => TopLevelSpec | undefined>> = {
  rates: ratesSpec,
  latency: latencySpec,
  growth: growthSpec,
  layers: layersSpec,
};

/** The picture of each part that was measured, as SVG text. */
export async function plotReport(report: Report): Promise<Map<string, string>> {
  const pictures = new Map<string, string>();
  for (const [part, draw] of Object.entries(DRAW)) {
    const spec = draw(report);
    if (spec !== undefined) pictures.set(part, await svgOf(spec));
  }
  return pictures;
}

async function svgOf(spec: TopLevelSpec): Promise<string> {
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  try {
    return `${(await view.toSVG()).trimEnd()}\n`;
  } finally {
    view.finalize();
  }
}

const panelOf = ({ path, size, queues }: Result): string =>
  `${path}, ${size === 'imix' ? 'imix' : `${size} bytes`}${queues === 1 ? '' : `, ${queues} queues`}`;

/** Medians as bars, the range of the samples as a line on each. */
function ratesSpec({ results, regime }: Report): TopLevelSpec | undefined {
  if (results.length === 0) return undefined;
  const names = [...new Set(results.map((result) => result.pairing))];
  const rows = results.map((result) => ({
    pairing: result.pairing,
    panel: panelOf(result),
    median: result.mpps.median,
    least: result.mpps.max - result.mpps.spread,
    most: result.mpps.max,
    label: result.ratio === null ? '' : `× ${result.ratio.toFixed(2)}`,
  }));
  const panels = [...new Set(rows.map((row) => row.panel))];
  const x = { field: 'pairing', type: 'nominal', sort: names, axis: { title: null, labelAngle: -30 } } as const;
  return {
    title: `Mpps, median of the rounds, with ratios to DPDK (${regime ?? 'regime unknown'})`,
    data: { values: rows },
    facet: { field: 'panel', type: 'nominal', header: { title: null }, sort: panels },
    columns: Math.min(PANELS_IN_A_ROW, panels.length),
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
}

/** The share of packets that each latency has, a panel a load and side. */
function latencySpec({ latency = [] }: Report): TopLevelSpec | undefined {
  if (latency.length === 0) return undefined;
  const rows = latency.flatMap(({ contender, load, latency: { packets: all }, histogram }) => {
    const [side, owner] = [contender.slice(0, contender.lastIndexOf(' ')), contender.split(' ').at(-1)];
    const panel = `${side}, ${Math.round(load * 100)} % load`;
    return histogram.map(({ upTo, packets }) => ({ owner, panel, upTo, share: packets / all }));
  });
  return {
    title: 'Round trip in µs, share of packets',
    data: { values: rows.filter(({ share }) => share > 0) },
    facet: { field: 'panel', type: 'nominal', header: { title: null } },
    columns: PANELS_IN_A_ROW,
    spec: {
      ...PANEL,
      mark: { type: 'line', point: true },
      encoding: {
        x: { field: 'upTo', type: 'quantitative', scale: { type: 'log' }, axis: { title: 'µs' } },
        y: { field: 'share', type: 'quantitative', scale: { type: 'log' }, axis: { title: null, format: '.0e' } },
        color: { field: 'owner', type: 'nominal', title: null },
      },
    },
  };
}

/** Medians over what grows, a panel an axis. */
function growthSpec({ growth = [] }: Report): TopLevelSpec | undefined {
  if (growth.length === 0) return undefined;
  const nameOf = (axis: AxisName) => `${axis}${unitOf(axis) && `,${unitOf(axis)}`}`;
  const rows = growth.map(({ axis, value, pairing, mpps }) => ({
    panel: nameOf(axis),
    value,
    pairing,
    median: mpps.median,
  }));
  return {
    title: 'Mpps, 64 bytes',
    data: { values: rows },
    facet: {
      field: 'panel',
      type: 'nominal',
      header: { title: null },
      sort: [...new Set(rows.map(({ panel }) => panel))],
    },
    columns: PANELS_IN_A_ROW,
    resolve: { scale: { x: 'independent' } },
    spec: {
      ...PANEL,
      mark: { type: 'line', point: true },
      encoding: {
        x: { field: 'value', type: 'quantitative', scale: { type: 'log', base: 2 }, axis: { title: null } },
        y: { field: 'median', type: 'quantitative', axis: { title: null } },
        color: { field: 'pairing', type: 'nominal', title: null },
      },
    },
  };
}

function layersSpec({ layers = [] }: Report): TopLevelSpec | undefined {
  if (layers.length === 0) return undefined;
  const names = layers.map(({ layer }) => layer);
  const y = { field: 'layer', type: 'nominal', sort: names, axis: { title: null } } as const;
  return {
    title: 'Nanoseconds a packet',
    data: { values: layers.map(({ layer, nanoseconds }) => ({ layer, median: nanoseconds.median })) },
    width: PANEL.width,
    layer: [
      { mark: 'bar', encoding: { y, x: { field: 'median', type: 'quantitative', axis: { title: null } } } },
      {
        mark: { type: 'text', align: 'left', dx: 4 },
        encoding: {
          y,
          x: { field: 'median', type: 'quantitative' },
          text: { field: 'median', type: 'quantitative', format: '.1f' },
        },
      },
    ],
  };
}
