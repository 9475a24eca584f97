// Decoding bytes and encoding them again.
//
//   {"do": "decode", "as": a kind below, "to": "" or another codec, "inputs": [base64]}
//   → {"verdicts": [{"ok", "again": base64 of what it encodes to, "error"}]}
import { CarReader } from '@ipld/car'
import * as dagCbor from '@ipld/dag-cbor'
import * as dagJson from '@ipld/dag-json'
import * as dagPb from '@ipld/dag-pb'
import { CID } from 'multiformats/cid'

const codecs = { 'dag-cbor': dagCbor, 'dag-json': dagJson, 'dag-pb': dagPb }

const decoders = {
  cid: async raw => CID.decode(raw).bytes,
  'cid-text': async raw => CID.parse(raw.toString()).bytes,
  car: async raw => {
    const reader = await CarReader.fromBytes(raw)
    const found = []
    for await (const { cid } of reader.blocks()) found.push(cid.bytes)
    return Buffer.concat(found)
  }
}

export async function decodeAll ({ as, to, inputs }) {
  let decode = decoders[as]
  if (decode === undefined) {
    const [from, target] = [codecs[as], codecs[to || as]]
    decode = async raw => target.encode(from.decode(raw))
  }
  const verdicts = []
  for (const input of inputs) {
    try {
      const again = await decode(Buffer.from(input, 'base64'))
      verdicts.push({ ok: true, again: Buffer.from(again).toString('base64') })
    } catch (error) {
      verdicts.push({ ok: false, error: `${error.name}: ${error.message}` })
    }
  }
  return { verdicts }
}
