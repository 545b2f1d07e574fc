/** Everything that was dropped, by path; folders with all that is in them. */
export async function readDropped({ items, files }: DataTransfer): Promise<ReadonlyMap<string, File>> {
  // Entries must be taken before the first await: the list is empty after it.
  const entries = [...items].map((item) => item.webkitGetAsEntry())
  const plain = [...files]
  const found = new Map<string, File>()
  for (const entry of entries) if (entry) await walk(entry, found)
  if (found.size === 0) for (const file of plain) found.set(file.name, file)
  return found
}

async function walk(entry: FileSystemEntry, found: Map<string, File>): Promise<void> {
  const path = entry.fullPath.replace(/^\//, '')
  if (entry.isFile) {
    const file = entry as FileSystemFileEntry
    found.set(path, await new Promise<File>((resolve, reject) => file.file(resolve, reject)))
    return
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader()
  // A reader hands out a hundred entries at a time, and none at the end.
  for (;;) {
    const inside = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    )
    if (inside.length === 0) return
    for (const each of inside) await walk(each, found)
  }
}
