// Building and reading UnixFS with Helia's importer and exporter.
//
//   {"do": "import", "profile", "folder", "car", layout…} → {"root"}
//   {"do": "export", "car"} → {"root", "entries": [{path, type, size, sha256, target, mode, mtime}]}
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { lstat, readdir, readlink } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { CarReader, CarWriter } from '@ipld/car'
import { MemoryBlockstore } from 'blockstore-core'
import { exporter } from 'ipfs-unixfs-exporter'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced, trickle } from 'ipfs-unixfs-importer/layout'
import { CID } from 'multiformats/cid'

async function * candidates (folder, prefix = '') {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const file = `${folder}/${entry.name}`
    const path = prefix + entry.name
    if (entry.isSymbolicLink()) {
      yield { path, link: await readlink(file) }
    } else if (entry.isDirectory()) {
      yield { path }
      yield * candidates(file, `${path}/`)
    } else {
      // A buffer of the file's size: thousands of empty files would fill the memory with large ones.
      const { size } = await lstat(file)
      yield { path, content: createReadStream(file, { highWaterMark: Math.min(size + 1, 1 << 20) }) }
    }
  }
}

// A memory store alone forgets the codecs: it keeps blocks by multihash.
class ArchivedBlockstore extends MemoryBlockstore {
  blocks = new Map()

  put (cid, bytes, options) {
    this.blocks.set(cid.toString(), { cid, bytes })
    return super.put(cid, bytes, options)
  }
}

// Options as the Go peer takes them, as far as this importer has them.
function importerOptions (job) {
  const options = { profile: job.profile, wrapWithDirectory: true }
  const maxChildrenPerNode = job.max_links ?? (job.profile === 'unixfs-v0-2015' ? 174 : 1024)
  options.layout = (job.layout === 'trickle' ? trickle : balanced)({ maxChildrenPerNode })
  if (job.layout === 'trickle') {
    options.leafType = 'raw'
    options.reduceSingleLeafToSelf = false
  }
  if (job.chunker !== undefined) options.chunker = fixedSize({ chunkSize: Number(job.chunker.slice('size-'.length)) })
  if (job.raw_leaves !== undefined) options.rawLeaves = job.raw_leaves
  if (job.cid_version !== undefined) options.cidVersion = job.cid_version
  if (job.hamt_threshold !== undefined) options.shardSplitThresholdBytes = job.hamt_threshold
  if (job.hamt_fanout !== undefined) options.shardFanoutBits = Math.log2(job.hamt_fanout)
  if (job.hamt_estimate !== undefined) options.shardSplitStrategy = `${job.hamt_estimate === 'links' ? 'links' : 'block'}-bytes`
  return options
}

export async function importFolder (job) {
  const store = new ArchivedBlockstore()
  let root
  for await (const entry of importer(candidates(job.folder), store, importerOptions(job))) root = entry.cid
  if (job.car === undefined) return { root: root.toString() }
  const { writer, out } = CarWriter.create([root])
  const written = pipeline(Readable.from(out), createWriteStream(job.car))
  for (const block of store.blocks.values()) await writer.put(block)
  await writer.close()
  await written
  return { root: root.toString() }
}

export async function exportCar ({ car }) {
  const reader = await CarReader.fromIterable(createReadStream(car))
  const [root, ...more] = await reader.getRoots()
  if (root === undefined || more.length > 0) throw new Error('not exactly one root')
  const store = new MemoryBlockstore()
  for await (const { cid, bytes } of reader.blocks()) await store.put(CID.asCID(cid), bytes)
  const entries = []
  await list('', root, store, entries)
  return { root: root.toString(), entries }
}

async function list (path, cid, store, entries) {
  const node = await exporter(cid, store)
  const { unixfs } = node
  const found = { path, type: node.type, size: 0, sha256: '', target: '', mode: 0, mtime: '' }
  if (unixfs !== undefined) {
    found.mode = unixfs.mode
    if (unixfs.mtime !== undefined) {
      found.mtime = `${unixfs.mtime.secs}.${String(unixfs.mtime.nsecs ?? 0).padStart(9, '0')}`
    }
  }
  entries.push(found)
  if (unixfs?.type === 'symlink') {
    found.type = 'symlink'
    found.target = Buffer.from(unixfs.data).toString()
  } else if (node.type === 'directory') {
    for await (const { name, cid } of node.entries()) {
      await list(path === '' ? name : `${path}/${name}`, cid, store, entries)
    }
  } else if (node.type === 'file' || node.type === 'raw') {
    const hash = createHash('sha256')
    for await (const part of node.content()) {
      hash.update(part)
      found.size += part.length
    }
    found.type = 'file'
    found.sha256 = hash.digest('hex')
  }
}
