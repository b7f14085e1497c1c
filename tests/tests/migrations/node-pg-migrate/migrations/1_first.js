exports.up = (pgm) => {
  pgm.createTable("cars", { id: "id", plate: { type: "varchar(12)", notNull: true, unique: true } });
  pgm.createTable("rentals", { id: "id", car: { type: "integer", notNull: true, references: "cars", onDelete: "CASCADE" }, begins: { type: "timestamp", default: pgm.func("current_timestamp") } });
  pgm.createIndex("rentals", "car");
};
