// Azurite for many blobs. Loaded before it: node --require THIS azurite-blob ARGUMENTS. Two things of it take time that grows with what it
// has, and neither says anything about what it answers.
//
// - It looks a blob up by account, container and name, in this order, and its database uses an index for the first of them only: the
//   index of an account that has everything. So each request looks at every blob there is. Here the name comes first.
// - Ten minutes after it started it deletes what was overwritten, and answers nobody until all is deleted: minutes. Here it does so after a day.

"use strict";

const { realpathSync } = require("fs");
const { createRequire } = require("module");

const azurite = createRequire(realpathSync(process.argv[1]));

const { Collection } = azurite("lokijs");
const findOne = Collection.prototype.findOne;
Collection.prototype.findOne = function (query) {
  const { name, ...others } = query ?? {};
  return findOne.call(this, name === undefined ? query : { name, ...others });
};

azurite("./utils/constants").DEFAULT_GC_INTERVAL_MS = 24 * 60 * 60 * 1000;
