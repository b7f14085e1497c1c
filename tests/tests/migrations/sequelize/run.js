// Sequelize has no migrations of its own that one needs: `sync` makes the tables, `sync({ force: true })` drops them first.
const { DataTypes, Sequelize } = require("sequelize");

(async () => {
  const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: false, pool: { max: 1 } });
  const Car = sequelize.define("car", { plate: { type: DataTypes.STRING, allowNull: false }, state: DataTypes.ENUM("free", "lent") });
  const Rental = sequelize.define("rental", { begins: DataTypes.DATE });
  Rental.belongsTo(Car, { onDelete: "CASCADE" });
  await sequelize.sync({ force: process.argv[2] === "force" });
  await sequelize.close();
})().catch((error) => {
  console.error(error.message, error.parent ? error.parent.code : "");
  process.exit(1);
});
