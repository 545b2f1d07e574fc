import { formatReport, type ReportData, reportFigures } from '@polygraft/evaluate'
import { describe, expect, it } from 'vitest'

const accuracy = { accuracy: 0.5, stderr: 0.1, n: 25 }
const DATA: ReportData = {
  title: 'instruct <and> graft',
  evaluations: [
    { checkpoint: 'instruct', languages: { en: { perplexity: 2, tokens: 9 } }, tasks: { where: accuracy } },
    {
      checkpoint: 'graft',
      languages: { en: { perplexity: 2.5, tokens: 9 }, el: { perplexity: 3, tokens: 9 } },
      tasks: { where: accuracy },
      fidelity: { el: accuracy },
    },
  ],
  experts: ['original', 'el'],
  routing: [{ language: 'el', layers: [[0.25, 0.75]] }],
  deltas: [{ group: 'attention', layer: 0, relativeNorm: 0.01 }],
}

describe('formatReport', () => {
  it('is one page that fetches nothing and runs nothing', async () => {
    const html = await formatReport(DATA)
    expect(html.match(/<svg/g)).toHaveLength(4)
    expect(html).toContain('<h1>instruct &lt;and&gt; graft</h1>')
    expect(html).toContain('<td>50.0 % ± 10.0 (25)</td>')
    expect(html).toContain('<tr><td>instruct</td><td>2.000</td><td>–</td></tr>')
    expect(html).not.toMatch(/<script|<link|<img|url\((?!#)|href="http|src=/)
  })

  it('draws what there is', () => {
    expect(reportFigures({ title: 't', evaluations: [] })).toEqual([])
    expect(reportFigures({ ...DATA, evaluations: [] }).map(({ title }) => title)).toHaveLength(2)
  })
})
