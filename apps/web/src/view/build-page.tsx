import { effect } from '@preact/signals'
import { proxy } from 'comlink'
import { useEffect } from 'preact/hooks'
import { openModel } from '../state/models.js'
import { outcome, outlook, recipeOf, running, runProblems } from '../state/recipe.js'
import { go } from '../state/route.js'
import { text } from '../state/settings.js'
import { problemsOf, worker } from '../state/worker.js'
import type { Target } from '../worker/api.js'
import { PlanPanel } from './plan-panel.js'
import { RecipeForm } from './recipe-form.js'
import { RunPanel } from './run-panel.js'

/** Choose, see the plan, run it. */
export function BuildPage() {
  useEffect(() => effect(plan), [])
  const recipe = recipeOf()
  return (
    <>
      <h1>{text.value.build}</h1>
      <p>{recipe ? text.value.buildText : text.value.needsBase}</p>
      {recipe && (
        <div class="columns">
          <RecipeForm recipe={recipe} />
          <div>
            <PlanPanel outlook={outlook.value} />
            <RunPanel run={run} openResult={openResult} />
          </div>
        </div>
      )}
    </>
  )
}

/** Follows every change of the recipe; of two plans under way the later counts. */
function plan(): void {
  const recipe = recipeOf()
  const asked = JSON.stringify(recipe)
  if (!recipe) return
  worker()
    .plan(recipe)
    .then((result) => {
      if (JSON.stringify(recipeOf()) === asked) outlook.value = result
    })
    .catch((error: unknown) => {
      outlook.value = { problems: problemsOf(error), warnings: [], commands: [], yaml: '' }
    })
}

async function run(target: Target): Promise<void> {
  const recipe = recipeOf()
  if (!recipe) return
  outcome.value = undefined
  runProblems.value = []
  running.value = [0, 1]
  const onProgress = (done: number, total: number) => {
    running.value = [done, total]
  }
  try {
    outcome.value = { manifest: await worker().run(recipe, target, proxy(onProgress)), target }
  } catch (error) {
    runProblems.value = problemsOf(error)
  } finally {
    running.value = undefined
  }
}

async function openResult(name: string): Promise<void> {
  const model = await openModel({ kind: 'output', name })
  if (model) go('inspect', { model: model.key })
}
