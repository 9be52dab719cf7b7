// Sends photos to the server: a few a request and two requests at a time, so that results stream in and memory stays
// bounded, however many photos there are.

import { Refusal, predict } from "./api.js";
import { size } from "./words.js";

const REQUESTS_AT_ONCE = 2;
const PHOTOS_A_REQUEST = 4;
const BYTES_A_REQUEST = 16e6;
// What a multipart body holds beside one photo: boundaries, headers, its name.
const ENVELOPE_BYTES = 2048;

// Of answers that are about the photos of a request, not about asking at all; 0 where they could not be sent.
const STATUS_OF_PHOTOS = new Set([0, 400, 408, 413, 415, 422, 500]);
export class Queue {
  #run = null; // what goes on now: { abort, working, failure }

  /**
   * @param tell.settled  called with a photo that has its result or its error
   * @param tell.stopped  called at the end of all work, with the error that ended it early, or null
   */
  constructor(tell) {
    Object.assign(this, { tell, model: "", limits: {}, waiting: [] });
  }

  get isRunning() {
    return this.#run !== null;
  }

  add(photos) {
    for (const photo of photos) {
      const fits = photo.file.size + ENVELOPE_BYTES <= this.limits.max_body_bytes;
      if (fits) this.waiting.push(photo);
      else this.#settle(photo, { error: this.#tooLarge(photo) });
    }
    this.#run ??= { abort: new AbortController(), working: 0, failure: null };
    const run = this.#run;
    while (run.working < REQUESTS_AT_ONCE && this.waiting.length) this.#work(run);
    if (!run.working) this.#end(run);
  }

  /** Stop, and forget what has not been sent. */
  cancel() {
    this.waiting = [];
    this.#run?.abort.abort();
    this.#end(this.#run);
  }

  async #work(run) {
    run.working += 1;
    try {
      while (!run.abort.signal.aborted) {
        const batch = this.#next();
        if (!batch.length) break;
        await this.#send(batch, run.abort.signal);
      }
    } catch (error) {
      if (!run.abort.signal.aborted) {
        run.failure = error;
        this.cancel();
      }
    }
    run.working -= 1;
    if (!run.working) this.#end(run);
  }

  #end(run) {
    if (run === null || run !== this.#run) return; // it has been cancelled, and another may go on
    this.#run = null;
    this.tell.stopped(run.failure);
  }

  #next() {
    const batch = [];
    let bytes = 0;
    const room = Math.min(BYTES_A_REQUEST, this.limits.max_body_bytes ?? Infinity);
    const most = Math.min(PHOTOS_A_REQUEST, this.limits.max_photos ?? Infinity);
    while (this.waiting.length && batch.length < most) {
      const photo = this.waiting[0];
      if (photo.removed) {
        this.waiting.shift();
        continue;
      }
      bytes += photo.file.size + ENVELOPE_BYTES;
      if (batch.length && bytes > room) break;
      batch.push(this.waiting.shift());
    }
    return batch;
  }

  async #send(batch, signal) {
    try {
      const answers = await predict(this.model, batch, signal);
      signal.throwIfAborted(); // an answer that crossed the cancelling may be another model's
      batch.forEach((photo, place) => this.#settle(photo, answers[place]));
    } catch (error) {
      if (signal.aborted) throw error;
      if (!(error instanceof Refusal && STATUS_OF_PHOTOS.has(error.status))) throw error;
      // The answer is about one of them: each is asked about alone, for its own.
      if (batch.length === 1) this.#settle(batch[0], { error: { code: error.code, message: error.message } });
      else for (const photo of batch) await this.#send([photo], signal);
    }
  }

  #settle(photo, answer) {
    if (photo.removed) return;
    photo.settle(answer);
    this.tell.settled(photo);
  }

  #tooLarge(photo) {
    const most = size(this.limits.max_body_bytes);
    return { code: "too_large", message: `The file has ${size(photo.file.size)}. The server takes up to ${most}.` };
  }
}
