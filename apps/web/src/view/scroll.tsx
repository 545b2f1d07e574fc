import type { ComponentChildren, Ref } from 'preact'

/** A box that scrolls, by keyboard too. */
export function Scroll(props: {
  label: string
  name: string
  box?: Ref<HTMLElement>
  onScroll?: (top: number) => void
  children: ComponentChildren
}) {
  const { label, name, box, onScroll, children } = props
  return (
    <section
      class={`scroll ${name}`}
      {...(box ? { ref: box } : {})}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
      tabIndex={0}
      aria-label={label}
      onScroll={(event) => onScroll?.(event.currentTarget.scrollTop)}
    >
      {children}
    </section>
  )
}
