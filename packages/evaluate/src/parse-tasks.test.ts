import { parseTasks } from '@polygraft/evaluate'
import { ModelError } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'

const only = (fields: object) => parseTasks(JSON.stringify(fields), 'file.jsonl', 'file')[0]

describe('parseTasks', () => {
  it.each([
    ['HellaSwag', { query: 'q', choices: ['a', 'b'], gold: 1 }, 1],
    ['MMLU, index', { question: 'q', choices: ['a', 'b', 'c', 'd'], answer: 3 }, 3],
    ['MMLU, letter', { question: 'q', choices: ['x', 'y', 'z'], answer: 'C' }, 2],
    ['ARC', { question: 'q', choices: { text: ['x', 'y'], label: ['1', '2'] }, answerKey: '2' }, 1],
    ['index as text', { text: 'q', choices: ['x', 'y'], label: '0' }, 0],
    ['the choice itself', { prompt: 'q', choices: ['B', 'A'], answer: 'A' }, 1],
  ])('multiple choice as in %s', (_, fields, gold) => {
    const item = only(fields)
    expect(item).toMatchObject({ kind: 'multiple-choice', prompt: 'q', gold, task: 'file' })
  })

  it.each([
    [{ prompt: 'q', answer: 'a' }, ['a'], []],
    [{ question: 'q', answers: ['a', 'b'], until: '\n' }, ['a', 'b'], ['\n']],
    [{ input: 'q', target: 'a', until: ['.', '!'] }, ['a'], ['.', '!']],
  ])('exact match %j', (fields, answers, until) => {
    expect(only(fields)).toEqual({ kind: 'exact-match', task: 'file', prompt: 'q', answers, until })
  })

  it('keeps task and language, and skips empty lines', () => {
    const text = '\n{"task":"where","language":"el","prompt":"p","answer":"a"}\r\n\n'
    expect(parseTasks(text, 'f', 't')).toMatchObject([{ task: 'where', language: 'el' }])
  })

  it('lists every broken line with its place', () => {
    const lines = [
      '{"prompt":"p","answer":"a"}',
      '{"prompt":',
      '[1]',
      '{"answer":"a"}',
      '{"prompt":"p","choices":["a"],"gold":0}',
      '{"prompt":"p","choices":["a","b"],"gold":2}',
      '{"prompt":"p"}',
      '{"prompt":"p","answer":"a","until":[""]}',
      '{"prompt":"p","answer":"a","language":3}',
    ]
    let error: unknown
    try {
      parseTasks(lines.join('\n'), 'tasks.jsonl', 't')
    } catch (caught) {
      error = caught
    }
    expect(error).toBeInstanceOf(ModelError)
    const { problems, code } = error as ModelError
    expect(code).toBe('bad-task')
    expect(problems.map(({ file }) => file)).toEqual(
      [2, 3, 4, 5, 6, 7, 8, 9].map((line) => `tasks.jsonl:${line}`),
    )
  })

  it('says that an empty file has no items', () => {
    expect(() => parseTasks('\n', 'f', 't')).toThrow('no task items')
  })
})
