exports.up = (pgm) => {
  pgm.addColumns("cars", { colour: { type: "text" } });
  pgm.createTable("services", { id: "id", car: { type: "integer", references: "cars" } });
};
